"""Checkouts of nst, and Python processes that import nst from one of them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.environments import last_line
from bench.programs import ROOT

_PACKAGES = ("proto", "client", "service")
"""The folders of a checkout that hold its packages."""


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
    def has_native_kernel(self) -> bool:
        """Whether the C++ kernel has been built in this checkout."""
        return any((self.root / "service").rglob("*.so"))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that imports nst from this checkout, and `bench` from ours."""
        paths = [str(self.root / package) for package in _PACKAGES]
        return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]), "PYTHONSAFEPATH": "1"}

    def start(self, module: str, arguments: Sequence[str], log: Path) -> "Running":
        """Start a module of `bench` on this checkout; its output goes to the log."""
        command = [sys.executable, "-m", module, *arguments]
        with log.open("w") as output:
            process = subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)
        return Running(self, process, log)


@dataclass(frozen=True)
class Running:
    """A process on a checkout."""

    checkout: Checkout
    process: subprocess.Popen[bytes]
    log: Path

    def finish(self) -> None:
        """Wait until the process ends.

        Raises:
            CheckoutError: it failed.
        """
        if code := self.process.wait():
            said = last_line(self.log.read_text(errors="replace"))
            raise CheckoutError(f"{self.checkout.name}: the process ended with {code}: {said} (see {self.log})")

    def kill(self) -> None:
        """End the process if it still runs."""
        self.process.kill()
        self.process.wait()


def this_and(other: Path) -> tuple[Checkout, Checkout]:
    """Return the checkout that this file belongs to and another one.

    Raises:
        CheckoutError: the other folder holds no nst, or only one of the two has the native kernel.
    """
    ours, theirs = Checkout("this", ROOT), Checkout("other", other.resolve())
    if not (theirs.root / "service" / "nst_service").is_dir():
        raise CheckoutError(f"{theirs.root} is no checkout of nst")
    for built, missing in ((ours, theirs), (theirs, ours)):
        if built.has_native_kernel and not missing.has_native_kernel:
            raise CheckoutError(
                f"{missing.root} has no native kernel, {built.root} has one: run `python setup.py build_ext --inplace`"
            )
    return ours, theirs
