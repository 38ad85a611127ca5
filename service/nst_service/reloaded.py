"""Values that follow files: read again when the files have changed, and kept as they were where that fails."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class SettingError(Exception):
    """A setting that the server cannot start with. The message is for the operator, and names no secret."""


class Reloaded(Generic[_T]):
    """A value read from files. It may be asked for by any thread, and costs a look at each file's date."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], _T]):
        """Read the value for the first time.

        Args:
            paths: the files that it comes from.
            read: reads them.

        Raises:
            SettingError: from `read`. Later, that is logged instead, and the value stays as it was.
        """
        self._paths = paths
        self._read = read
        self._lock = threading.Lock()
        # Before the files are read: one that changes meanwhile is read again at the next look.
        self._seen = self._look()
        self._value = read()

    @property
    def value(self) -> _T:
        """The value as the files have it now."""
        with self._lock:
            if (now := self._look()) != self._seen:
                self._seen = now
                names = ", ".join(map(str, self._paths))
                try:
                    self._value = self._read()
                    _log.info("read again: %s", names)
                except SettingError as error:
                    _log.error("kept as it was: %s: %s", names, error)
            return self._value

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_identity(path) for path in self._paths]


def read_file(path: Path) -> bytes:
    """Return what is in a file.

    Raises:
        SettingError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is written or replaced; None where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
