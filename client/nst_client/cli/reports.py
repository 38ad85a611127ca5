"""Reports of running jobs: for people on stderr, for programs on stdout."""

import abc
import contextlib
import dataclasses
import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import click
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as ProgressBar

from nst_client.cli.streams import ReliableConsole
from nst_client.events import (
    Accepted,
    Completed,
    Disconnected,
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

_LINE_SECONDS = 1.0
"""The least seconds between two lines about the progress."""


@dataclass(frozen=True, kw_only=True)
class Position:
    """The position in a sequence of frames."""

    number: int
    """The number of the frame in its footage."""
    index: int
    """The number of the frame among the frames to be done, from 1."""
    count: int | None
    """The number of frames to be done; None if that is unknown."""
    name: str
    """The name of the file that the frame comes from."""
    eta_seconds: float | None
    """Expected seconds until the last frame is done."""

    def __str__(self) -> str:
        count = "?" if self.count is None else self.count
        left = "" if self.eta_seconds is None else f", {_duration(self.eta_seconds)} left"
        return f"frame {self.index} of {count}{left}: "


@dataclass(frozen=True, kw_only=True)
class CellPosition:
    """A cell of a sheet, and how far the sheet is."""

    column: int
    """The number of the column, from 1."""
    row: int
    """The number of the row, from 1."""
    strength: float
    """The strength of the cell."""
    stroke_size: float
    """The stroke size of the cell."""
    finished: int
    """The number of cells that are finished."""
    count: int
    """The number of cells."""
    eta_seconds: float | None
    """Expected seconds until the last cell is done."""

    def __str__(self) -> str:
        left = "" if self.eta_seconds is None else f", {_duration(self.eta_seconds)} left"
        return f"{self.finished} of {self.count} cells{left}, cell {self.column},{self.row}: "


class SavedPicture(Protocol):
    """The description of a file that was written."""

    @property
    def media_type(self) -> str:
        """The media type, such as "image/png"."""

    @property
    def width(self) -> int:
        """Width in pixels."""

    @property
    def height(self) -> int:
        """Height in pixels."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of `data`, in lower-case hex."""

    @property
    def data(self) -> bytes:
        """The encoded file."""


class Report(Protocol):
    """A report of one job, of a sequence of jobs, or of the jobs of a sheet."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def frame(self, position: Position) -> None:
        """Note which frame of a sequence the next events are about."""

    def outage(self, outage: Disconnected) -> None:
        """Show that the server is lost."""

    def cell(self, position: CellPosition) -> None:
        """Note which cell of a sheet the next event is about."""

    def note(self, text: str) -> None:
        """Show a line that stays."""

    def warn(self, text: str) -> None:
        """Show a line about something that went wrong, even if little else is shown."""

    def saved(self, path: Path, picture: SavedPicture) -> None:
        """Show that a picture was saved."""


class Silence:
    """A report that shows nothing but what went wrong."""

    def event(self, event: Event) -> None:
        """Show nothing."""

    def frame(self, position: Position) -> None:
        """Show nothing."""

    def outage(self, outage: Disconnected) -> None:
        """Show nothing."""

    def cell(self, position: CellPosition) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""

    def warn(self, text: str) -> None:
        """Write a line to stderr."""
        click.echo(text, err=True)

    def saved(self, path: Path, picture: SavedPicture) -> None:
        """Show nothing."""


class JsonLines:
    """A report that writes each event to stdout as a JSON object on one line, and notes to stderr."""

    def event(self, event: Event) -> None:
        """Write an event."""
        click.echo(event_to_json(event))

    def frame(self, position: Position) -> None:
        """Write the position."""
        click.echo(to_json({"event": "frame"} | dataclasses.asdict(position)))

    def outage(self, outage: Disconnected) -> None:
        """Write the outage to stdout."""
        click.echo(to_json({"event": "disconnected"} | dataclasses.asdict(outage)))

    def cell(self, position: CellPosition) -> None:
        """Write the position."""
        click.echo(to_json({"event": "cell"} | dataclasses.asdict(position)))

    def note(self, text: str) -> None:
        """Write a line to stderr."""
        click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Write a line to stderr."""
        click.echo(text, err=True)

    def saved(self, path: Path, picture: SavedPicture) -> None:
        """Write the description of the saved file."""
        saved = {
            "event": "saved",
            "path": str(path),
            "media_type": picture.media_type,
            "width": picture.width,
            "height": picture.height,
            "size_bytes": len(picture.data),
            "sha256": picture.sha256,
        }
        click.echo(to_json(saved))


class _TextReport(abc.ABC):
    """The part that reports for people have in common."""

    def __init__(self) -> None:
        self._prefix = ""
        """The position in a sequence, which stands before everything about its frame."""

    def frame(self, position: Position) -> None:
        """Show the position before everything that happens to the frame."""
        self._prefix = str(position)

    def outage(self, outage: Disconnected) -> None:
        """Show a line that stays."""
        seconds = _duration(outage.reconnect_seconds)
        self.note(f"{self._prefix}the server is lost ({outage.message}): looking for it for {seconds}")

    def cell(self, position: CellPosition) -> None:
        """Show the position before what happens to the cell."""
        self._prefix = str(position)

    @abc.abstractmethod
    def note(self, text: str) -> None:
        """Show a line that stays."""

    def warn(self, text: str) -> None:
        """Show a line that stays."""
        self.note(text)

    def saved(self, path: Path, picture: SavedPicture) -> None:
        """Show that a picture was saved."""
        self.note(f"wrote {path}: {picture.width}x{picture.height}, {picture.media_type}, {len(picture.data)} bytes")


class Lines(_TextReport):
    """A report of plain lines, about one a second."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self._write = write
        self._clock = clock
        self._written: dict[type[Event], float] = {}
        """The time of the last line about each kind of progress."""

    def event(self, event: Event) -> None:
        """Show an event, unless it is progress and a line of the same kind was shown just before."""
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

    def note(self, text: str) -> None:
        """Show a line."""
        self._write(text)


class Bar(_TextReport):
    """A report with a live progress bar."""

    def __init__(self, bar: ProgressBar):
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("waiting for the server", total=None)
        self._counts_cells = False

    def cell(self, position: CellPosition) -> None:
        """Show the position before what happens to the cell. The bar is the share of finished cells."""
        super().cell(position)
        self._counts_cells = True
        self._bar.update(self._task, completed=position.finished, total=position.count)

    def event(self, event: Event) -> None:
        """Show an event in place of the one before. Important events are shown above the bar."""
        text = describe(event)
        if text is not None and isinstance(event, Reconnected | Reduced):
            self.note(self._prefix + text)
        elif text is not None:
            self._bar.update(self._task, description=self._prefix + text)
        if isinstance(event, Progress) and not self._counts_cells:
            self._bar.update(self._task, completed=event.iteration, total=event.total_iterations)

    def note(self, text: str) -> None:
        """Show a line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False)


class FailsafeReport:
    """A report whose failures neither end the job nor cost its result."""

    def __init__(self, report: Report, *, is_output: bool):
        """Wrap a report.

        Args:
            report: the report.
            is_output: whether programs read its events from stdout, so that none may be missing in between.
        """
        self._report = report
        self._is_output = is_output
        self._failure: Exception | None = None

    @property
    def is_complete(self) -> bool:
        """Whether programs that still read the events got all of them."""
        return not self._is_output or self._failure is None or isinstance(self._failure, BrokenPipeError)

    def event(self, event: Event) -> None:
        """Show an event."""
        self._attempt(lambda: self._report.event(event))

    def frame(self, position: Position) -> None:
        """Note which frame of a sequence the next events are about."""
        self._attempt(lambda: self._report.frame(position))

    def outage(self, outage: Disconnected) -> None:
        """Show that the server is lost."""
        self._attempt(lambda: self._report.outage(outage))

    def cell(self, position: CellPosition) -> None:
        """Note which cell of a sheet the next event is about."""
        self._attempt(lambda: self._report.cell(position))

    def saved(self, path: Path, picture: SavedPicture) -> None:
        """Show that a picture was saved."""
        self._attempt(lambda: self._report.saved(path, picture))

    def note(self, text: str) -> None:
        """Show a line that stays."""
        with contextlib.suppress(Exception):
            self._report.note(text)

    def warn(self, text: str) -> None:
        """Show a line about something that went wrong."""
        with contextlib.suppress(Exception):
            self._report.warn(text)

    def _attempt(self, show: Callable[[], None]) -> None:
        if self._failure is not None and self._is_output:
            return
        try:
            show()
        except Exception as error:
            self._failure = error
            if not self.is_complete:
                self.warn(f"cannot write the events: {error}; the job continues without them")


@contextlib.contextmanager
def open_report(*, as_json: bool, quiet: bool) -> Iterator[Report]:
    """Open the report that the flags ask for. For people, stderr decides: a bar for a terminal, lines otherwise."""
    console = ReliableConsole(stderr=True)
    if as_json:
        yield JsonLines()
    elif quiet:
        yield Silence()
    elif console.is_terminal:
        bar = ProgressBar(BarColumn(), TextColumn("{task.description}", markup=False), console=console)
        report: Report = Silence()
        with contextlib.suppress(Exception):
            bar.start()
            report = Bar(bar)
        try:
            yield report
        finally:
            with contextlib.suppress(Exception):
                bar.stop()
    else:
        yield Lines(lambda line: click.echo(line, err=True))


def describe(event: Event) -> str | None:
    """Return an event as one line; None if it has no line."""
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
            return f"memory ran out: the job continues at {event.width}x{event.height}"
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
    return f"{lost}: the server had lost the job, which starts again" if event.began_anew else lost


def _reduced(event: Accepted) -> str:
    edge = event.estimate.reduced_from
    return f" (reduced from {edge}, which does not fit into memory)" if edge else ""


def _scale(event: Preparing | Progress) -> str:
    return f"scale {event.scale}/{event.scales}, " if event.scales > 1 else ""


def _duration(seconds: float) -> str:
    """Return a duration as h:mm:ss, or in seconds if it is shorter than a minute."""
    if not 0 <= seconds < 10**9:
        return "an unknown time"
    return f"{seconds:.1f} s" if seconds < 60 else str(datetime.timedelta(seconds=round(seconds)))
