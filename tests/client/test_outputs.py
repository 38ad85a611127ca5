"""What a command writes: its result always, and everything else as far as it can be written."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from nst.v1 import style_transfer_pb2 as pb
from nst_client.cli import commands
from nst_client.cli.reports import FailsafeReport, JsonLines, Lines

SOON = 20.0
"""Seconds after which a test that waits has failed."""


@pytest.fixture
def run(target):
    """Run the command line against the server."""

    def run(*arguments):
        return CliRunner(env={"NST_TARGET": target}).invoke(commands, [str(a) for a in arguments])

    return run


@pytest.fixture
def shell(target, tmp_path):
    """Run a line of bash in the folder of the test, in which `nst-client` is the client of this checkout."""
    code = "from nst_launcher.commands import client; client()"
    script = f'nst-client() {{ {shlex.quote(sys.executable)} -c {shlex.quote(code)} --target {target} "$@"; }}\n'

    def shell(line, **options):
        command = ["bash", "-o", "pipefail", "-c", script + line]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=SOON, check=False, **options)

    return shell


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    "line",
    [
        "nst-client stylize content.jpg style.jpg --format png -o - > out.png",
        "nst-client stylize content.jpg style.jpg --format png -o - | cat > out.png",
        "nst-client stylize content.jpg style.jpg --format png -o /dev/stdout > out.png",
        "nst-client stylize content.jpg style.jpg --format png -o >(cat > part.png; mv part.png out.png); wait $!",
        "cat content.jpg | nst-client stylize - style.jpg -o out.png",
        "nst-client stylize content.jpg - -o out.png < style.jpg",
        "nst-client stylize <(cat content.jpg) <(cat style.jpg) -o out.png",
        "nst-client stylize content.jpg style.jpg -o out.png >&-",
        "nst-client stylize content.jpg style.jpg -o out.png 2>&-",
        "nst-client stylize content.jpg style.jpg -o out.png <&- >&- 2>&-",
        "nst-client stylize content.jpg style.jpg -o out.png 2> /dev/full",
        "nst-client stylize content.jpg style.jpg -o out.png 2>&1 | head -c 1",
        "FORCE_COLOR=1 nst-client stylize content.jpg style.jpg -o out.png 2>&1 | head -c 1",
        "nst-client stylize content.jpg style.jpg -o out.png --json | head -n 1",
    ],
)
def test_the_picture_arrives_whatever_it_goes_through(shell, servicer, script, tmp_path, line):
    servicer.attempts = [script.job(b"the picture" * 20_000)]
    done = shell(line)
    for _ in range(200):
        if (tmp_path / "out.png").exists():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert (tmp_path / "out.png").read_bytes() == b"the picture" * 20_000, done.stderr
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert servicer.requests[0].content.data == b"content.jpg"
    assert servicer.requests[0].styles[0].picture.data == b"style.jpg"
    assert not (tmp_path / "-").exists()


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nst-client stylize - - -o out.png < style.jpg", "'-' is given more than once, there is one stdin"),
        ("nst-client stylize content.jpg - -o out.png <&-", "stdin is closed"),
        ("nst-client stylize content.jpg style.jpg --format png -o - >&-", "stdout is closed"),
        ("nst-client stylize content.jpg style.jpg --format png -o - --json", "both write to stdout"),
        ("nst-client stylize content.jpg style.jpg --format png -o - --preview -", "there is one stdout"),
        ("nst-client stylize content.jpg style.jpg --format png -o /dev/full", "No space left on device"),
        ("nst-client stylize content.jpg style.jpg -o out.png --preview /dev/full", "No space left on device"),
        ("nst-client watch job-1 -o - --json", "both write to stdout"),
        ("nst-client get job-1 -o - --json", "both write to stdout"),
        ("nst-client sequence - style.jpg -o folder", "INPUT '-' is not possible"),
        ("nst-client sequence folder style.jpg -o -", "'-' is not possible"),
        (f"nst-client stylize content.jpg style.jpg -o {'x' * 252}.png", "File name too long"),
        (f"nst-client stylize content.jpg style.jpg -o out.png --frames {'x' * 256}", "File name too long"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(*, shell, servicer, tmp_path, line, message):
    (tmp_path / "folder").mkdir()
    done = shell(line)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.decode().split())
    assert servicer.requests == []


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize(
    "line",
    [
        "nst-client stylize content.jpg style.jpg --format png -o - | head -c 1",
        # The limit of the size of a file is reached, as if the disk were full.
        "ulimit -f 1; nst-client stylize content.jpg style.jpg -o out.png",
        "ulimit -f 1; nst-client watch job-1 -o out.png",
        "ulimit -f 1; nst-client get job-1 -o out.png",
    ],
)
def test_a_picture_that_cannot_be_written_is_named_with_the_command_that_fetches_it(
    *, shell, servicer, script, description, target, tmp_path, line
):
    job = script.job(b"x" * 2_000_000)
    servicer.attempts, servicer.watch_attempts, servicer.described = [job], [job], [description()]
    done = shell(line)
    assert done.returncode == 1
    stderr = done.stderr.decode()
    assert "Error: cannot write" in stderr
    assert f"nst-client --target {target} get job-1 -o FILE" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.png").exists()


@pytest.fixture
def full_disk(monkeypatch):
    """Let no file be written whose name has this text in it."""

    def full_disk(text):
        original = Path.write_bytes

        def write_bytes(path, data):
            if text in data.decode("latin-1"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(path, data)

        monkeypatch.setattr(Path, "write_bytes", write_bytes)

    return full_disk


def test_a_preview_that_cannot_be_written_costs_no_picture(*, run, servicer, script, pictures, tmp_path, full_disk):
    accepted = script.accepted()
    servicer.attempts = [[accepted, script.preview(), script.preview(), *script.picture(b"the picture")]]
    full_disk("preview")
    preview = tmp_path / "preview.jpg"
    done = run("stylize", *pictures[:2], "-o", tmp_path / "out.png", "--preview", preview, "--quiet")
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    # It is told once, and also where nothing else is told.
    assert done.stderr == f"cannot write {preview}: No space left on device\n"
    assert done.exit_code == 1
    assert servicer.cancelled == []


@pytest.mark.parametrize(
    ("flag", "name", "method"),
    [
        ("--plot", "loss.svg", "losses.LossPlot.event"),
        ("--plot", "loss.svg", "losses.LossPlot.end"),
        ("--frames", "frames", "frames.Frames.event"),
        ("--frames", "frames", "frames.Frames.end"),
        ("--timelapse", "film.gif", "timelapse.Timelapse.event"),
        ("--timelapse", "film.gif", "timelapse.Timelapse.end"),
    ],
)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), MemoryError("full"), ValueError("full")])
def test_a_recording_that_fails_costs_no_picture(
    *, run, servicer, script, pictures, tmp_path, monkeypatch, flag, name, method, error
):
    def fail(*_):
        raise error

    monkeypatch.setattr(f"nst_client.media.{method}", fail)
    servicer.attempts = [[script.accepted(), script.progress(1), *script.picture(b"the picture")]]
    done = run("stylize", *pictures[:2], "-o", tmp_path / "out.png", flag, tmp_path / name)
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert done.stderr.count(f"cannot write {tmp_path / name}: full") == 1
    assert done.exit_code == 1
    assert servicer.cancelled == []


def test_events_that_cannot_be_written_are_told_and_cost_no_picture(*, shell, servicer, script, pictures, tmp_path):
    servicer.attempts = [script.job(b"the picture")]
    done = shell(f"nst-client stylize {pictures[0]} {pictures[1]} -o out.png --json > /dev/full")
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert done.returncode == 1
    assert done.stderr.decode().count("cannot write the events") == 1
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("stop_reason", [pb.STOP_REASON_CANCELLED])
def test_a_cancelled_job_whose_report_is_broken_still_ends_with_130(
    *, shell, servicer, script, pictures, tmp_path, stop_reason
):
    servicer.attempts = [[script.accepted(), *script.picture(b"the picture", stop_reason=stop_reason)]]
    done = shell(f"nst-client stylize {pictures[0]} {pictures[1]} -o out.png --json > /dev/full")
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert done.returncode == 130


def test_a_job_whose_id_cannot_be_printed_is_named_in_the_error(shell, servicer, script, pictures):
    servicer.attempts = [[script.accepted("job-7"), servicer.wait_for_end]]
    done = shell(f"nst-client stylize {pictures[0]} {pictures[1]} --detach > /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"Error: cannot write to stdout: No space left on device. The job is job-7\n"


@pytest.mark.parametrize(
    "command", ["info", "info --json", "health", "list", "list --json", "get job-1", "cancel job-1"]
)
def test_an_answer_that_cannot_be_printed_is_one_line(shell, servicer, description, command):
    servicer.described = [description()]
    done = shell(f"nst-client {command} > /dev/full")
    assert (done.returncode, done.stderr) == (1, b"Error: cannot write to stdout: No space left on device\n")


def test_a_picture_is_fetched_before_its_job_is_described(*, shell, servicer, script, description, tmp_path):
    servicer.described, servicer.watch_attempts = [description()], [script.job(b"the picture")] * 2
    assert shell("nst-client get job-1 -o out.png > /dev/full").returncode == 1
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    done = shell("nst-client get job-1 -o -")
    assert (done.returncode, done.stdout) == (0, b"the picture")
    assert b"job-1" in done.stderr


def test_events_for_programs_have_no_gap():
    written = []

    class Flaky(JsonLines):
        def event(self, event):
            if len(written) == 1:
                written.append(None)
                raise OSError(errno.ENOSPC, "full")
            written.append(event)

    report = FailsafeReport(Flaky(), is_output=True)
    for event in range(3):
        report.event(event)
    assert written == [0, None]
    assert not report.is_complete


def test_lines_for_people_go_on_when_they_can_be_written_again():
    lines = []

    def write(line):
        lines.append(line)
        if len(lines) == 1:
            raise OSError(errno.ENOSPC, "full")

    report = FailsafeReport(Lines(write), is_output=False)
    report.note("first")
    report.note("second")
    assert lines == ["first", "second"]
    assert report.is_complete
