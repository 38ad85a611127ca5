"""Recorders of a run, which make a loss curve, frames and a film of its events, and sheets of an exploration.

They need matplotlib, Pillow and PyAV, the extra `media`. Each library is imported when a recorder or a writer that
needs it is made.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from nst_client.events import Event
from nst_client.options import PictureFormat
from nst_client.result import Result

if TYPE_CHECKING:
    from nst_client.media.sheet import SheetWriter

EXTRA = "nst-stylize[media]"
"""The requirement to install for all of them."""

PLOT_SUFFIXES = (".png", ".svg")
"""The suffixes that the file of a loss curve may have."""
TIMELAPSE_SUFFIXES = (".mp4", ".webp", ".gif")
"""The suffixes that the file of a film may have."""

_DISTRIBUTIONS = MappingProxyType({"PIL": "pillow"})
"""The distribution of a package whose name is another one."""


class MissingLibraryError(ImportError):
    """A library of the extra `media` is not installed."""

    def __init__(self, library: str):
        super().__init__(f"{library} is not installed", name=library)
        self.library = library
        """The name of the distribution to install."""


class Recorder(Protocol):
    """Follows the events of one job and writes a file or a folder."""

    @property
    def path(self) -> Path:
        """The path of the file or folder."""

    def event(self, event: Event) -> None:
        """Process the next event.

        Raises:
            OSError: the file or folder cannot be written.
        """

    def end(self, result: Result | None) -> bool:
        """Finish the file or folder.

        Args:
            result: the finished picture; None if the job ended without one.

        Returns:
            Whether there was anything to write.

        Raises:
            OSError: the file or folder cannot be written.
        """


def record_losses(path: Path) -> Recorder:
    """Return a recorder that draws the losses over the iterations.

    Args:
        path: the path of the file, with one of the `PLOT_SUFFIXES`.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    with _optional():
        from nst_client.media.losses import LossPlot
    return LossPlot(path)


def record_frames(path: Path) -> Recorder:
    """Return a recorder that keeps every preview, the final picture and a contact sheet of them.

    Args:
        path: the path of the folder, which is made if it does not exist.

    Raises:
        MissingLibraryError: Pillow is not installed.
    """
    with _optional():
        from nst_client.media.frames import Frames
    return Frames(path)


def record_timelapse(path: Path) -> Recorder:
    """Return a recorder that makes a film of the previews, which ends on the final picture.

    Args:
        path: the path of the file, with one of the `TIMELAPSE_SUFFIXES`.

    Raises:
        MissingLibraryError: Pillow, or PyAV for an MP4, is not installed.
    """
    kind = path.suffix.lower().removeprefix(".")
    with _optional():
        from nst_client.media.timelapse import Animation, Timelapse

        if kind == "mp4":
            from nst_client.media.mp4 import Mp4

            return Timelapse(path, Mp4)
    return Timelapse(path, functools.partial(Animation, kind))


def sheet_writer(
    path: str | os.PathLike[str],
    picture_format: PictureFormat = PictureFormat.JPEG,
    *,
    quality: int | None = None,
    metadata: bool = True,
) -> "SheetWriter":
    """Return a writer of the sheet of an exploration (see `nst_client.exploration`).

    Args:
        path: the path of the file. Its suffix does not change the format.
        picture_format: the format of the file.
        quality: quality of JPEG and WebP. Range: 1 to 100. Default: 90.
        metadata: whether the file says how its cells were made, which `nst_client.metadata.read_metadata` reads.

    Raises:
        MissingLibraryError: Pillow is not installed.
    """
    with _optional():
        from nst_client.media.sheet import SheetWriter
    return SheetWriter(Path(path), picture_format, quality=quality, metadata=metadata)


@contextlib.contextmanager
def _optional() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise MissingLibraryError(_DISTRIBUTIONS.get(package, package)) from error
