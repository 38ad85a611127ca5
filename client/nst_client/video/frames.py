"""The frames of a folder of pictures or of a video file."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from nst_client.errors import InvalidRequestError, NstError
from nst_client.files import PICTURE_FORMATS
from nst_client.media.h264 import EXACT
from nst_client.options import Picture
from nst_client.video.pixels import encode


class FootageError(InvalidRequestError):
    """A folder or a video file cannot be read, or has no frames."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame."""

    number: int
    """The number of the frame in its footage, from 1."""
    name: str
    """The name of the file that the frame comes from, for messages."""
    picture: Picture = field(repr=False)
    """The encoded picture."""

    def __str__(self) -> str:
        return f"frame {self.number} ({self.name})"


@contextlib.contextmanager
def naming(frame: Frame) -> Iterator[None]:
    """Add a note that names the frame to an error in the body."""
    try:
        yield
    except NstError as error:
        error.add_note(str(frame))
        raise


class Footage(Protocol):
    """A source of frames."""

    @property
    def path(self) -> Path:
        """The path of the folder or file."""

    @property
    def count(self) -> int | None:
        """The number of frames; None if the file does not say."""

    @property
    def rate(self) -> Fraction | None:
        """The number of frames a second; None for a folder."""

    def frames(self, start: int = 1, end: int | None = None) -> Iterator[Frame]:
        """Read the frames one after the other.

        Args:
            start: the number of the first frame to read.
            end: the number of the last frame to read. Default: the last frame there is.

        Raises:
            FootageError: a frame cannot be read.
        """


def open_footage(path: str | os.PathLike[str]) -> Footage:
    """Open a folder of pictures or a video file.

    Raises:
        FootageError: the path is neither, or has no frames.
    """
    path = Path(path)
    return _folder(path) if path.is_dir() else _video(path)


@dataclass(frozen=True, kw_only=True)
class PictureFolder:
    """A folder of pictures, ordered by the numbers in their names."""

    path: Path
    files: tuple[Path, ...]
    rate: None = None

    @property
    def count(self) -> int:
        """The number of pictures."""
        return len(self.files)

    def frames(self, start: int = 1, end: int | None = None) -> Iterator[Frame]:
        """Yield the pictures (see `Footage.frames`)."""
        for number, file in islice(enumerate(self.files, start=1), start - 1, end):
            yield Frame(number=number, name=file.name, picture=file)


@dataclass(frozen=True, kw_only=True)
class VideoFile:
    """A video file."""

    path: Path
    count: int | None
    rate: Fraction | None

    def frames(self, start: int = 1, end: int | None = None) -> Iterator[Frame]:
        """Decode the frames and turn them upright (see `Footage.frames`)."""
        try:
            with av.open(self.path) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                decoded = zip(count(1), container.decode(stream), strict=False)
                for number, image in islice(decoded, start - 1, end):
                    pixels = np.asarray(image.to_ndarray(format="bgr24", interpolation=EXACT), np.uint8)
                    upright = np.ascontiguousarray(np.rot90(pixels, image.rotation // 90))
                    yield Frame(number=number, name=self.path.name, picture=encode(upright))
        except av.FFmpegError as error:
            raise FootageError(f"cannot read the video {str(self.path)!r}: {error.strerror}") from error


def _folder(path: Path) -> PictureFolder:
    files = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_FORMATS and file.name[0] != "."]
    if not files:
        raise FootageError(f"the folder {str(path)!r} has no pictures, accepted are {', '.join(PICTURE_FORMATS)}")
    return PictureFolder(path=path, files=tuple(sorted(files, key=_natural)))


def _natural(file: Path) -> tuple[list[str | int], str]:
    """Return a sort key by which 2.png comes before 10.png."""
    # A split by a group gives text and digits in turns, so that text is compared with text.
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if index % 2 else part.lower() for index, part in enumerate(parts)], file.name


def _video(path: Path) -> VideoFile:
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise FootageError(f"{str(path)!r} has no pictures in it")
            stream = container.streams.video[0]
            return VideoFile(path=path, count=stream.frames or None, rate=stream.average_rate)
    except av.FFmpegError as error:
        raise FootageError(f"cannot read the video {str(path)!r}: {error.strerror}") from error
