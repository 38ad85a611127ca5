"""A server and a client of the nst that this process imports, which `bench.checkouts` has chosen.

Imports nothing but the public client, and uses only what nst 0.1.0 has: processes of either checkout run this file.
"""

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nst_client import StyleTransferClient

_START_SECONDS = 120.0
"""Seconds that a server gets to load its weights and to warm up."""
_SERVE = "from nst_service.cli import main; main()"


class WrongCheckoutError(Exception):
    """This process imports nst from somewhere else than it was told to."""


@dataclass(frozen=True)
class Server:
    """A server process and a client of it."""

    process: subprocess.Popen[bytes]
    client: StyleTransferClient


@contextmanager
def serving(data: Path, *flags: str) -> Iterator[Server]:
    """Run a server on the CPU with a data directory and further flags of its command line."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
    arguments = ["--address", target, "--data-dir", str(data), "--device", "cpu", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NST_")}
    process = subprocess.Popen([sys.executable, "-c", _SERVE, *arguments], env=environment, stdout=sys.stderr)
    try:
        with StyleTransferClient(target, reconnect_seconds=0) as client:
            client.wait_until_ready(_START_SECONDS)
            yield Server(process, client)
    finally:
        process.kill()
        process.wait()


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
