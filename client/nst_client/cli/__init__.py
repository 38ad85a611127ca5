"""`nst-client`: the command line of the client, with the exit codes that `--help` shows."""

import contextlib
import signal
import sys

import click
from nst_launcher.descriptors import open_missing_descriptors
from nst_launcher.signals import handle_signals

from nst_client.cli.connection import Connection, connection_flags
from nst_client.cli.estimate import estimate
from nst_client.cli.exits import CANCELLED
from nst_client.cli.explore import explore_command
from nst_client.cli.jobs import cancel, get, list_jobs, watch
from nst_client.cli.sequence import sequence
from nst_client.cli.server import health, info
from nst_client.cli.streams import discard_unwritten, echo_error
from nst_client.cli.stylize import stylize

_EPILOG = """\b
Exit codes:
    0  done
    1  any other failure. The picture is written even if the plot, another file or the events cannot be
    2  wrong usage, or the server refuses the request
    3  no server answers, or it accepts no jobs now
    4  the job does not fit into the memory of the device
    5  the timeout is too short or has passed
    6  the server violated the contract, or the picture arrived corrupt
    7  the server requires another token or certificate, or does not allow the call
  130  cancelled, by Ctrl-C, SIGTERM, SIGHUP or somebody else: the best picture so far is written if there is one,
       or every finished frame of a sequence or cell of a sheet. `watch` also ends with it after one of these signals
"""


@click.group(
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@connection_flags
@click.version_option(package_name="nst-stylize", prog_name="nst-client")
@click.pass_context
def commands(context: click.Context, /, *, connection: Connection) -> None:
    """Stylise pictures and videos on an nst server."""
    context.obj = connection
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (stylize, explore_command, sequence, estimate, watch, get, list_jobs, cancel, info, health):
    commands.add_command(_command)


def main() -> None:
    """Run the command line and exit.

    SIGTERM and SIGHUP raise KeyboardInterrupt like Ctrl-C, unless the parent process has chosen to ignore them.
    """
    open_missing_descriptors()
    handle_signals(signal.default_int_handler)
    try:
        code = commands.main(prog_name="nst-client", standalone_mode=False)
    except click.Abort:
        echo_error("Error: interrupted")
        code = CANCELLED
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        code = error.exit_code
    finally:
        discard_unwritten()
    sys.exit(code)
