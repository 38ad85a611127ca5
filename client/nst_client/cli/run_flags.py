"""The flags that say how a command runs its jobs and what it shows of them."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import click

from nst_client.cli.connection import seconds
from nst_client.cli.reports import FailsafeReport, Report, open_report
from nst_client.session import RETRIES


@dataclass(frozen=True, kw_only=True)
class Display:
    """What a command shows of a job."""

    as_json: bool
    """Whether every event is written to stdout as a JSON object."""
    quiet: bool
    """Whether stderr gets errors only."""

    def open(self) -> AbstractContextManager[Report]:
        """Open the report that shows it."""
        return open_report(as_json=self.as_json, quiet=self.quiet)

    @contextlib.contextmanager
    def open_failsafe(self) -> Iterator[FailsafeReport]:
        """Open the report, which may fail without harm to the job."""
        with self.open() as report:
            yield FailsafeReport(report, is_output=self.as_json)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a command runs its jobs."""

    timeout: float | None
    """Time limit of each job in seconds; None for no limit."""
    retries: int
    """Number of times to resend a job that no server accepts."""
    display: Display
    """What the command shows of each job."""


def display_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --json and --quiet, and pass their values to it as one `display`."""

    @click.option("--json", "as_json", is_flag=True, help="Write each event to stdout as a JSON object on one line.")
    @click.option("--quiet", is_flag=True, help="Write nothing but errors to stderr.")
    @functools.wraps(command)
    def with_display(*arguments: Any, as_json: bool, quiet: bool, **flags: Any) -> Any:
        return command(*arguments, display=Display(as_json=as_json, quiet=quiet), **flags)

    return with_display


def run_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --timeout, --retries and the flags of its display, and pass their values to it as one `run`."""

    @click.option(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help="Time limit of each job, including its wait in the queue.",
    )
    @click.option(
        "--retries",
        type=click.IntRange(min=0),
        default=RETRIES,
        show_default=True,
        help="Number of times to resend a job that no server accepts.",
    )
    @display_flags
    @functools.wraps(command)
    def with_run(*arguments: Any, timeout: float | None, retries: int, display: Display, **flags: Any) -> Any:
        return command(*arguments, run=Run(timeout=timeout, retries=retries, display=display), **flags)

    return with_run
