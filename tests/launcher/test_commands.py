"""The entry points: signals while modules load, closed standard streams, and libraries that are missing."""

import os
import signal
import subprocess
import sys

import pytest

from tests.client.conftest import inherit_signals

SOON = 60.0
"""Seconds after which a test that waits has failed."""

SLOW = {"client": "grpc", "server": "torch"}
"""A library of each command whose import takes long."""


@pytest.fixture
def start(tmp_path):
    """Start a command, with a module in place of one of its libraries."""
    started = []

    def start(command, *arguments, module="", code="", ignored=()):
        if module:
            (tmp_path / f"{module}.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        main = f"from nst_launcher.commands import {command}; {command}()"
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", inherit_signals(ignored) + main, *arguments],
                env=os.environ | {"PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


_SLOW = """
import time

print("loading", flush=True)
try:
    time.sleep(60)
except BaseException:
    # An exception in the middle of an import can end anywhere.
    raise SystemError
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("command", "code"), [("client", 130), ("server", 0)])
def test_a_signal_while_modules_load_ends_the_program_with_one_line(start, command, code, number):
    process = start(command, module=SLOW[command], code=_SLOW)
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=SOON)
    assert (process.returncode, stdout, stderr) == (code, "", "interrupted\n")


@pytest.mark.parametrize("command", ["client", "server"])
def test_a_signal_that_the_parent_ignores_stays_ignored_while_modules_load(start, command):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nprint('alive', flush=True)\nos._exit(5)"
    process = start(command, module=SLOW[command], code=code, ignored=[signal.SIGHUP])
    assert process.communicate(timeout=SOON)[0] == "alive\n"
    assert process.returncode == 5


@pytest.mark.parametrize("library", ["torch", "sqlalchemy", "fsspec", "numpy", "PIL", "platformdirs"])
def test_a_server_without_its_libraries_names_the_extra(start, library):
    missing = f"raise ModuleNotFoundError(\"No module named '{library}'\", name={library!r})"
    process = start("server", module=library, code=missing)
    stdout, stderr = process.communicate(timeout=SOON)
    assert (process.returncode, stdout) == (1, "")
    message = f"Error: nst-server needs {library}, which is not installed: pip install 'nst-stylize[server]'"
    assert stderr.splitlines()[-1] == message
    assert "Traceback" not in stderr


def test_the_options_of_the_server_need_no_library_of_it(start):
    process = start("server", "--help", module="torch", code="raise SystemError")
    assert "Usage:" in process.communicate(timeout=SOON)[0]
    assert process.returncode == 0


_CLOSED = """
import errno, os
from nst_launcher.descriptors import open_missing_descriptors

os.closerange(0, 3)
open_missing_descriptors()
assert os.open(os.devnull, os.O_RDONLY) > 2
for use in (lambda: os.read(0, 1), lambda: os.write(1, b""), lambda: os.write(2, b"")):
    try:
        use()
    except OSError as error:
        assert error.errno == errno.EBADF
    else:
        raise AssertionError
"""


def test_closed_standard_streams_are_not_reused():
    assert subprocess.run([sys.executable, "-c", _CLOSED], check=False).returncode == 0
