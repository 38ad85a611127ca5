"""Checkouts of nst, and Python processes that import nst from one of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.environments import last_line

_FOLDERS = ("proto", "client", "service")
"""The folders of a checkout that hold its packages."""
_SOURCES = (".cpp", ".h", ".inc")
"""Suffixes of the sources of the native kernel."""
_INTERRUPT_SECONDS = 10.0
"""Seconds that a process gets to end after it was interrupted."""
_BUILD = "run `python setup.py build_ext --inplace` there"


class CheckoutError(Exception):
    """A checkout cannot be used, or a process on it failed. The message says why."""


@dataclass(frozen=True)
class Checkout:
    """The working tree of one commit."""

    name: str
    """The name of this checkout in reports."""
    root: Path
    """The folder of the working tree."""

    @property
    def packages(self) -> tuple[Path, ...]:
        """The folders that hold the packages."""
        return tuple(self.root / folder for folder in _FOLDERS)

    def has_native_kernel(self) -> bool:
        """Return whether the C++ kernel has been built in this checkout.

        Raises:
            CheckoutError: it was built before its sources changed.
        """
        service = self.root / "service" / "nst_service"
        for stub in service.rglob("_*.pyi"):
            for library in stub.parent.glob(f"{stub.stem}.*.so"):
                sources = (path for path in service.rglob("native/*") if path.suffix in _SOURCES)
                if any(path.stat().st_mtime > library.stat().st_mtime for path in sources):
                    raise CheckoutError(f"the native kernel of {self.root} is outdated: {_BUILD}")
                return True
        return False

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that imports nst from this checkout, and `bench` from ours."""
        paths = [*self.packages, ROOT]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONSAFEPATH": "1"}

    def start(self, module: str, arguments: Sequence[str], log: Path) -> "Running":
        """Start a module of `bench` on this checkout. What it says goes to the log, but for its answers to `ask`."""
        command = [sys.executable, "-m", module, *arguments]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
            )
        return Running(self, process, log)


@dataclass(frozen=True)
class Running:
    """A process on a checkout."""

    checkout: Checkout
    process: subprocess.Popen[str]
    log: Path

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send a question, one JSON object in a line, and wait for the answer, which is another one.

        Raises:
            CheckoutError: the process has failed.
        """
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.finish()
            raise self._error("the process ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def finish(self) -> None:
        """Close the input of the process and wait until it ends.

        Raises:
            CheckoutError: it failed.
        """
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        if code := self.process.returncode:
            raise self._error(f"the process ended with {code}: {last_line(self.log.read_text(errors='replace'))}")

    def interrupt(self) -> None:
        """Interrupt the process if it still runs, so that it ends its own server, and wait until it ends."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=_INTERRUPT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def _error(self, message: str) -> CheckoutError:
        return CheckoutError(f"{self.checkout.name}: {message} (see {self.log})")


def this_and(other: Path) -> tuple[Checkout, Checkout]:
    """Return the checkout that this file belongs to and another one.

    Raises:
        CheckoutError: the other folder holds no nst, only one of the two has the native kernel, or it is outdated.
    """
    ours, theirs = Checkout("this", ROOT), Checkout("other", other.resolve())
    if not (theirs.root / "service" / "nst_service").is_dir():
        raise CheckoutError(f"{theirs.root} is no checkout of nst")
    have_kernel = {checkout: checkout.has_native_kernel() for checkout in (ours, theirs)}
    if len(set(have_kernel.values())) > 1:
        missing = ours if have_kernel[theirs] else theirs
        raise CheckoutError(f"only {missing.root} has no native kernel: {_BUILD}")
    return ours, theirs
