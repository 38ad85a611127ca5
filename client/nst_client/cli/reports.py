"""What a command shows while a job runs: to people on stderr, to programs on stdout."""

import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar

from nst_client.events import (
    Accepted,
    Completed,
    Event,
    Preparing,
    Preview,
    Progress,
    Queued,
    Reconnected,
    Reduced,
    Started,
)
from nst_client.json import event_to_json, to_json
from nst_client.result import Result

_LINE_SECONDS = 1.0
"""Between two lines about the progress."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a sequence stands."""

    number: int
    """Of the frame in its footage."""
    index: int
    """Of the frame among those that are to be done, from 1 on."""
    count: int | None
    """How many are to be done, where that is known."""
    name: str
    """Of the file that the frame comes from."""
    eta_seconds: float | None
    """Expected seconds until the last frame is done."""

    def __str__(self) -> str:
        count = "?" if self.count is None else self.count
        left = "" if self.eta_seconds is None else f", {_duration(self.eta_seconds)} left"
        return f"frame {self.index} of {count}{left}: "


class Report(Protocol):
    """Shows events."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def frame(self, position: Position) -> None:
        """Tell which frame of a sequence the next events are about."""

    def note(self, text: str) -> None:
        """Show a line that stays."""

    def saved(self, path: Path, result: Result) -> None:
        """Show that the result is in its file."""


class Silence:
    """Shows nothing."""

    def event(self, event: Event) -> None:
        """Show nothing."""

    def frame(self, position: Position) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def saved(self, path: Path, result: Result) -> None:
        """Show nothing."""


class JsonLines:
    """Writes every event as one JSON object a line on stdout, and notes to stderr."""

    def event(self, event: Event) -> None:
        """Write an event."""
        click.echo(event_to_json(event))

    def frame(self, position: Position) -> None:
        """Write the position."""
        click.echo(to_json({"event": "frame"} | dataclasses.asdict(position)))

    def note(self, text: str) -> None:
        """Write a line to stderr."""
        click.echo(text, err=True)

    def saved(self, path: Path, result: Result) -> None:
        """Write what was saved."""
        saved = {
            "event": "saved",
            "path": str(path),
            "media_type": result.media_type,
            "width": result.width,
            "height": result.height,
            "size_bytes": len(result.data),
            "sha256": result.sha256,
        }
        click.echo(to_json(saved))


class Lines:
    """Shows plain lines, about one a second."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._write = write
        self._clock = clock
        self._written: dict[type[Event], float] = {}
        """When the last line about each kind of progress was."""
        self._prefix = ""

    def event(self, event: Event) -> None:
        """Show an event, unless it is progress and another of its kind was shown just before."""
        text = describe(event)
        if text is None:
            return
        now = self._clock()
        if isinstance(event, Preparing | Progress):
            is_last = isinstance(event, Progress) and event.iteration == event.total_iterations
            if now - self._written.get(type(event), -_LINE_SECONDS) < _LINE_SECONDS and not is_last:
                return
            self._written[type(event)] = now
        self._write(self._prefix + text)

    def frame(self, position: Position) -> None:
        """Show the position before everything that happens to the frame."""
        self._prefix = str(position)

    def note(self, text: str) -> None:
        """Show a line."""
        self._write(text)

    def saved(self, path: Path, result: Result) -> None:
        """Show what was saved."""
        self.note(_saved(path, result))


class Bar:
    """Shows a live progress bar."""

    def __init__(self, bar: ProgressBar):
        self._bar = bar
        self._task = bar.add_task("waiting for the server", total=None)
        self._prefix = ""

    def event(self, event: Event) -> None:
        """Show an event in place of the one before, and above the bar what must not be overlooked."""
        text = describe(event)
        if text is not None and isinstance(event, Reconnected | Reduced):
            self.note(self._prefix + text)
        elif text is not None:
            self._bar.update(self._task, description=self._prefix + text)
        if isinstance(event, Progress):
            self._bar.update(self._task, completed=event.iteration, total=event.total_iterations)

    def frame(self, position: Position) -> None:
        """Show the position before everything that happens to the frame."""
        self._prefix = str(position)

    def note(self, text: str) -> None:
        """Show a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)

    def saved(self, path: Path, result: Result) -> None:
        """Show what was saved above the bar."""
        self.note(_saved(path, result))


@contextlib.contextmanager
def open_report(*, as_json: bool, quiet: bool) -> Iterator[Report]:
    """Open the report that was asked for and fits where stderr goes."""
    console = Console(stderr=True)
    if as_json:
        yield JsonLines()
    elif quiet:
        yield Silence()
    elif console.is_terminal:
        with ProgressBar(BarColumn(), TextColumn("{task.description}", markup=False), console=console) as bar:
            yield Bar(bar)
    else:
        yield Lines(lambda line: click.echo(line, err=True))


def describe(event: Event) -> str | None:
    """Return an event in one line; None for those that are not worth one."""
    match event:
        case Accepted():
            return (
                f"job {event.job_id} accepted: {event.width}x{event.height}{_reduced(event)}, "
                f"{event.options.iterations} iterations, about {_duration(event.estimate.seconds)}"
            )
        case Queued():
            return f"queued: {event.position} ahead, starts in about {_duration(event.eta_seconds)}"
        case Started():
            return f"started on {event.device}"
        case Preparing():
            return f"{_scale(event)}preparing, part {event.part}/{event.parts}"
        case Reduced():
            return f"memory ran out: goes on at {event.width}x{event.height}"
        case Progress():
            rate = f"{event.iteration / event.elapsed_seconds:.3g} it/s, " if event.elapsed_seconds > 0 else ""
            return (
                f"{_scale(event)}iteration {event.iteration}/{event.total_iterations}, loss {event.total_loss:.4g}, "
                f"{rate}{_duration(event.eta_seconds)} left"
            )
        case Completed():
            timings = event.timings
            return (
                f"done after {event.iterations} iterations in {_duration(timings.optimize_seconds)}, "
                f"loss {event.total_loss:.4g}, stopped by: {event.stop_reason}"
            )
        case Reconnected():
            return _reconnected(event)
        case Preview():
            return None


def _reconnected(event: Reconnected) -> str:
    lost = f"reconnected after {_duration(event.seconds)}"
    return f"{lost}: the server had lost the job, which begins again" if event.began_anew else lost


def _reduced(event: Accepted) -> str:
    edge = event.estimate.reduced_from
    return f" (reduced from {edge}, which does not fit into memory)" if edge else ""


def _scale(event: Preparing | Progress) -> str:
    return f"scale {event.scale}/{event.scales}, " if event.scales > 1 else ""


def _saved(path: Path, result: Result) -> str:
    return f"wrote {path}: {result.width}x{result.height}, {result.media_type}, {len(result.data)} bytes"


def _duration(seconds: float) -> str:
    """Return seconds as h:mm:ss, or with more precision where they are few."""
    if not 0 <= seconds < 10**9:
        return "an unknown time"
    return f"{seconds:.1f} s" if seconds < 60 else str(datetime.timedelta(seconds=round(seconds)))
