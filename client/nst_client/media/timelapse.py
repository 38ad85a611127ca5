"""A recorder that makes a film of the previews of a run."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nst_client.events import Accepted, Event, Preview
from nst_client.files import write_atomically
from nst_client.media.pictures import Size, decode, frame_size
from nst_client.result import Result

FRAMES_PER_SECOND = 10
_HOLD_SECONDS = 2


class Film(Protocol):
    """A film under construction. Pictures are brought to one size, and each is shown for a number of frames."""

    def add(self, data: bytes, *, frames: int) -> None:
        """Append an encoded picture."""

    def encoded(self) -> bytes:
        """Return the file. No picture can be added after that."""


class Animation:
    """A GIF or WebP that plays in a loop."""

    def __init__(self, kind: str, size: Size):
        self._kind = kind
        self._size = size
        self._pictures: list[bytes] = []
        """The encoded pictures, since decoded ones would take ten times the memory for the whole run."""
        self._milliseconds: list[int] = []

    def add(self, data: bytes, *, frames: int) -> None:
        """Append an encoded picture."""
        self._pictures.append(data)
        self._milliseconds.append(frames * 1000 // FRAMES_PER_SECOND)

    def encoded(self) -> bytes:
        """Return the file."""
        pictures = (decode(data, self._size) for data in self._pictures)
        buffer = io.BytesIO()
        next(pictures).save(
            buffer, self._kind, save_all=True, append_images=pictures, duration=self._milliseconds, loop=0
        )
        return buffer.getvalue()


class Timelapse:
    """Makes a film of the previews. It ends on the final picture, which is held for two seconds."""

    def __init__(self, path: Path, begin: Callable[[Size], Film]):
        self.path = path
        self._begin = begin
        self._size: Size = (1, 1)
        """The size of previews, known from Accepted, the first event."""
        self._film: Film | None = None
        self._iteration = -1
        """The iteration of the last preview."""

    def event(self, event: Event) -> None:
        """Append a preview, unless a job repeats it that was resumed from its last checkpoint."""
        match event:
            case Accepted():
                self._size = frame_size(event)
            case Preview() if event.iteration > self._iteration:
                self._iteration = event.iteration
                self._append(event.data)

    def end(self, result: Result | None) -> bool:
        """Append the final picture and write the film."""
        if result is not None:
            self._append(result.data, frames=_HOLD_SECONDS * FRAMES_PER_SECOND)
        if self._film is None:
            return False
        write_atomically(self.path, self._film.encoded())
        return True

    def _append(self, data: bytes, *, frames: int = 1) -> None:
        if self._film is None:
            self._film = self._begin(self._size)
        self._film.add(data, frames=frames)
