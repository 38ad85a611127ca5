"""A server process and a client of the nst that this process imports.

Imports nothing but the public client, and uses only what nst 0.1.0 has, so that it works on other checkouts, too (see
`bench.checkouts`).
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nst_client import DeadlineExceededError, StyleTransferClient

from bench.environments import last_line

_START_SECONDS = 120.0
"""Seconds that a server gets to load its weights and to warm up."""
_CHECK_SECONDS = 2.0
"""Seconds between two checks whether a server that is not ready still runs."""
_SERVE = "from nst_service.cli import main; main()"


class ServerError(Exception):
    """A server did not start. The message says why."""


class WrongCheckoutError(Exception):
    """This process imports nst from another checkout than it was told to."""


@dataclass(frozen=True)
class Server:
    """A server process and a client of it."""

    process: subprocess.Popen[bytes]
    client: StyleTransferClient
    target: str
    """The host and port at which it listens."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def serving(data: Path, *flags: str) -> Iterator[Server]:
    """Run a server on the CPU. Its log is a file beside its data directory.

    Args:
        data: the data directory.
        flags: further flags of the command line of the server.

    Raises:
        ServerError: the server did not start.
    """
    target = f"127.0.0.1:{free_port()}"
    log = data.with_suffix(".log")
    arguments = ["--address", target, "--data-dir", str(data), "--device", "cpu", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NST_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, *arguments], env=environment, stdout=output, stderr=output
        )
    try:
        # The jobs of a benchmark end with their server.
        with StyleTransferClient(target, reconnect_seconds=0) as client:
            _wait_until_ready(process, client, log)
            yield Server(process, client, target)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], client: StyleTransferClient, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            client.wait_until_ready(_CHECK_SECONDS)
        except DeadlineExceededError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = last_line(log.read_text(errors="replace"))
                raise ServerError(f"the server did not start: {said} (see {log})") from error
        else:
            return


def check_imports() -> None:
    """Check that all packages of nst come from the checkout that `PYTHONPATH` begins with.

    Raises:
        WrongCheckoutError: at least one comes from somewhere else, such as the installed distribution.
    """
    specs = [importlib.util.find_spec(name) for name in ("nst", "nst_client", "nst_service")]
    roots = {Path(spec.origin).parents[2] for spec in specs if spec and spec.origin}
    expected = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0]).parent
    if roots != {expected}:
        raise WrongCheckoutError(f"nst is imported from {', '.join(map(str, roots))}, expected is {expected}")
