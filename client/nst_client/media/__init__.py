"""What a run can leave behind besides its picture: its loss curve, its frames and its film.

This is the only part of the client that needs matplotlib, Pillow and PyAV, the extra `media`: each of them is imported
only once something is asked for that is made with it.
"""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from nst_client.events import Event
from nst_client.result import Result

EXTRA = "nst-stylize[media]"
"""What to install for everything here."""

PLOT_SUFFIXES = (".png", ".svg")
"""Of a loss curve."""
TIMELAPSE_SUFFIXES = (".mp4", ".webp", ".gif")
"""Of a film."""

_DISTRIBUTIONS = MappingProxyType({"PIL": "pillow"})
"""By the name that is imported, where that is another."""


class MissingLibraryError(ImportError):
    """A library of the extra `media` is not installed."""

    def __init__(self, library: str):
        super().__init__(f"{library} is not installed", name=library)
        self.library = library
        """The name to install it by."""


class Recorder(Protocol):
    """Follows the events of one job and makes something of them."""

    @property
    def path(self) -> Path:
        """Where it is written."""

    def event(self, event: Event) -> None:
        """Take the next event.

        Raises:
            OSError: what it is written into cannot be written.
        """

    def end(self, result: Result | None) -> bool:
        """Write what has come together.

        Args:
            result: the finished picture; None where the job ended without one.

        Returns:
            Whether there was anything to write.

        Raises:
            OSError: it cannot be written.
        """


def record_losses(path: Path) -> Recorder:
    """Return what draws the losses over the iterations.

    Args:
        path: the file, with one of the `PLOT_SUFFIXES`.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    with _optional():
        from nst_client.media.losses import LossPlot
    return LossPlot(path)


def record_frames(path: Path) -> Recorder:
    """Return what keeps every preview, the final picture and a contact sheet of them.

    Args:
        path: the folder, made where there is none.

    Raises:
        MissingLibraryError: Pillow is not installed.
    """
    with _optional():
        from nst_client.media.frames import Frames
    return Frames(path)


def record_timelapse(path: Path) -> Recorder:
    """Return what makes a film of the previews that ends on the final picture.

    Args:
        path: the file, with one of the `TIMELAPSE_SUFFIXES`.

    Raises:
        MissingLibraryError: Pillow is not installed, or for MP4 PyAV.
    """
    kind = path.suffix.lower().removeprefix(".")
    with _optional():
        from nst_client.media.timelapse import Animation, Timelapse

        if kind == "mp4":
            from nst_client.media.mp4 import Mp4

            return Timelapse(path, Mp4)
    return Timelapse(path, functools.partial(Animation, kind))


@contextlib.contextmanager
def _optional() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise MissingLibraryError(_DISTRIBUTIONS.get(package, package)) from error
