"""The files that a job is recorded in besides its result: previews, plots, frames and films."""

from collections.abc import Callable, Sequence
from pathlib import Path

from nst_client.cli.exits import reason_of
from nst_client.events import Event, Preview
from nst_client.files import write_atomically
from nst_client.media import Recorder
from nst_client.result import Result


class PreviewFile:
    """Writes the latest preview."""

    def __init__(self, path: Path):
        self.path = path

    def event(self, event: Event) -> None:
        """Write a preview."""
        if isinstance(event, Preview):
            write_atomically(self.path, event.data)

    def end(self, result: Result | None) -> bool:
        """Do nothing: each preview was written at once."""
        del result
        return False


class Recordings:
    """The recorders of one job. What they cannot write neither ends the job nor costs its result."""

    def __init__(self, recorders: Sequence[Recorder], note: Callable[[str], None], warn: Callable[[str], None]):
        """Prepare the recordings.

        Args:
            recorders: the recorders.
            note: shows a line about a file that was written.
            warn: shows a line about a file that cannot be written.
        """
        self._recorders = recorders
        self._note = note
        self._warn = warn
        self._incomplete: set[Path] = set()

    @property
    def are_complete(self) -> bool:
        """Whether everything could be written so far."""
        return not self._incomplete

    def event(self, event: Event) -> None:
        """Pass an event to every recorder."""
        for recorder in self._recorders:
            try:
                recorder.event(event)
            except Exception as error:
                self._fail(recorder, error)

    def end(self, result: Result | None) -> None:
        """Finish every recording."""
        for recorder in self._recorders:
            try:
                is_written = recorder.end(result)
            except Exception as error:
                self._fail(recorder, error)
            else:
                if is_written:
                    self._note(f"wrote {recorder.path}")

    def _fail(self, recorder: Recorder, error: Exception) -> None:
        # The same disk stays full for many previews.
        if recorder.path not in self._incomplete:
            self._incomplete.add(recorder.path)
            self._warn(f"cannot write {recorder.path}: {reason_of(error)}")
