import click
import pytest
from click.testing import CliRunner
from nst_client.cli import commands
from nst_client.cli.reports import JsonLines, Silence
from nst_client.cli.run_flags import Display, Run, run_flags


def flags_of(command):
    """Every flag of a command, by its Python name."""
    return {parameter.name: parameter.to_info_dict() for parameter in commands.commands[command].params}


@pytest.mark.parametrize("name", ["timeout", "retries", "as_json", "quiet"])
def test_commands_that_run_jobs_have_the_same_flags_for_it(name):
    assert flags_of("stylize")[name] == flags_of("sequence")[name]


@pytest.mark.parametrize("name", ["as_json", "quiet"])
def test_a_command_that_follows_a_job_shows_it_as_one_that_runs_it(name):
    assert flags_of("watch")[name] == flags_of("stylize")[name]


@click.command()
@run_flags
def command(run):
    click.echo(repr(run))


@pytest.mark.parametrize(
    ("flags", "run"),
    [
        ([], Run(timeout=None, retries=2, display=Display(as_json=False, quiet=False))),
        (
            ["--timeout", "1.5", "--retries", "0", "--json", "--quiet"],
            Run(timeout=1.5, retries=0, display=Display(as_json=True, quiet=True)),
        ),
    ],
)
def test_the_flags_of_a_run_arrive_as_one_value(flags, run):
    assert CliRunner().invoke(command, flags).stdout == f"{run!r}\n"


@pytest.mark.parametrize("flags", [["--timeout", "0"], ["--retries", "-1"]])
def test_a_run_that_cannot_be_is_a_usage_error(flags):
    done = CliRunner().invoke(command, flags)
    assert (done.exit_code, flags[0] in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("display", "report"),
    [(Display(as_json=True, quiet=True), JsonLines), (Display(as_json=False, quiet=True), Silence)],
)
def test_a_display_opens_the_report_that_its_flags_ask_for(display, report):
    with display.open() as opened:
        assert isinstance(opened, report)
