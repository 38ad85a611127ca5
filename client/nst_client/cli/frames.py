"""The work of `nst-client sequence`. This module needs the extra `video`; the command itself does not."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from nst_client.cli.connection import Connection
from nst_client.cli.exits import CANCELLED, INCOMPLETE, reported, writing, writing_result
from nst_client.cli.interrupts import at_interrupt, deferred_interrupts
from nst_client.cli.reports import FailsafeReport, Position, Report
from nst_client.client import Stylization
from nst_client.errors import JobCancelledError, NstError, UnavailableError
from nst_client.events import StopReason
from nst_client.result import Result
from nst_client.video import (
    FinishedFrame,
    FolderWriter,
    Footage,
    FootageError,
    Frame,
    FrameWriter,
    VideoWriter,
    naming,
    open_footage,
    stylize_sequence,
)


def run_sequence(
    connection: Connection,
    source: Path,
    out: Path,
    *,
    is_folder: bool,
    start: int,
    end: int | None,
    rate: Fraction | None,
    resume: bool,
    retries: int,
    open_report: Callable[[], AbstractContextManager[FailsafeReport]],
    **arguments: Any,
) -> int:
    """Stylise frames of `source` and write them to `out`.

    Args:
        connection: the server and the connection to it.
        source: the path of a folder of pictures or of a video.
        out: the path of a folder or of a video.
        is_folder: whether `out` is a folder.
        start: the number of the first frame.
        end: the number of the last frame; None for the last one there is.
        rate: frames a second, if `out` is a video; None for the rate of `source`.
        resume: whether to continue after the frames that the folder has.
        retries: see `StyleTransferClient`.
        open_report: a function that opens the report of the progress.
        **arguments: further arguments of `stylize_sequence`.

    Returns:
        The exit code of the command.
    """
    with reported(connection.target):
        footage = open_footage(source)
        previous = None
        writer: FrameWriter
        if is_folder:
            writer = FolderWriter(out)
            previous = _last_finished(footage, writer, start, resume=resume)
        else:
            # Sound does not fit to another rate, and a folder has no sound.
            sound = source if footage.rate is not None and rate is None else None
            writer = VideoWriter(out, rate or footage.rate, sound=sound, start=start)
        first = start if previous is None else previous.frame.number + 1
        last = min((number for number in (end, footage.count) if number is not None), default=None)
        if last is not None and last < start:
            raise FootageError(f"{str(source)!r} has {footage.count} frames, there is no frame {start}")
        with (
            deferred_interrupts() as interrupts,
            open_report() as report,
            connection.client(retries=retries, on_disconnect=report.outage) as client,
        ):
            progress = _Progress(None if last is None else last - first + 1, report)
            jobs = stylize_sequence(
                client,
                footage.frames(first, end),
                previous=previous,
                on_start=progress.begin,
                on_event=lambda _, event: report.event(event),
                **arguments,
            )
            try:
                with writing(out), writer, at_interrupt(interrupts, progress.stop):
                    _write_all(
                        jobs, writer, progress, report, lambda job_id: writing_result(out, job_id, connection.target)
                    )
            finally:
                report.note(progress.summary())
    if progress.stopped:
        return CANCELLED
    return 0 if report.is_complete else INCOMPLETE


def _last_finished(footage: Footage, writer: FolderWriter, start: int, *, resume: bool) -> FinishedFrame | None:
    """Return the frame after which to continue; None if there is none.

    Raises:
        click.UsageError: there is one, but the command was called without --resume.
        FootageError: the folder has more frames than the footage.
    """
    number = writer.first_missing(start) - 1
    if number < start:
        return None
    if not resume:
        raise click.UsageError(f"{writer.path(start)} exists already: --resume continues after the frames of a folder")
    frame = next(footage.frames(number), None)
    if frame is None:
        raise FootageError(f"{writer.path(number)} belongs to another sequence: {str(footage.path)!r} has fewer frames")
    return FinishedFrame(frame=frame, result=writer.path(number))


class _Progress:
    """The progress of a sequence, which the thread that sees Ctrl-C can stop."""

    def __init__(self, count: int | None, report: Report):
        self.stopped = False
        self._count = count
        self._report = report
        self._finished = 0
        self._running: Stylization | None = None
        self._began = 0.0
        self._seconds: float | None = None
        """The seconds that the latest frame took."""

    def begin(self, frame: Frame, stylization: Stylization) -> None:
        """Note the start of the next frame and its job."""
        self._began = time.monotonic()
        self._report.frame(
            Position(
                number=frame.number,
                index=self._finished + 1,
                count=self._count,
                name=frame.name,
                eta_seconds=self._eta(),
            )
        )
        # Either this method or `stop` sees what the other one did, because both write before they read.
        self._running = stylization
        if self.stopped:
            stylization.close()

    def finish(self) -> None:
        """Note the end of that job."""
        self._finished += 1
        self._seconds = time.monotonic() - self._began

    def _eta(self) -> float | None:
        if self._count is None or self._seconds is None:
            return None
        return (self._count - self._finished) * self._seconds

    def stop(self) -> None:
        """End the running job and every job that follows."""
        self._report.note("ending the running frame; press Ctrl-C again to leave at once")
        self.stopped = True
        if self._running is not None:
            self._running.close()

    def summary(self) -> str:
        """Return how many frames are finished, in words."""
        count = "" if self._count is None else f" of {self._count}"
        return f"{self._finished}{count} frames are finished"


def _write_all(
    jobs: Iterator[tuple[Frame, Result]],
    writer: FrameWriter,
    progress: _Progress,
    report: Report,
    writing_frame: Callable[[str], AbstractContextManager[None]],
) -> None:
    """Write each frame when it is finished. `writing_frame` takes the id of its job.

    A frame that was ended early is not written, since the next frame would follow from it.
    """
    try:
        for frame, result in jobs:
            with naming(frame):
                match result.completed.stop_reason:
                    case StopReason.CANCELLED:
                        raise JobCancelledError("the job was cancelled")
                    case StopReason.SHUTDOWN:
                        raise UnavailableError("the server shut down")
                with writing_frame(result.job_id):
                    path = writer.write(frame.number, result.data)
            progress.finish()
            if path is not None:
                report.saved(path, result)
    except NstError:
        # A job that was closed ends with an error.
        if not progress.stopped:
            raise
