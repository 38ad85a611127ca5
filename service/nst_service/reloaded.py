"""Values from files, which are read again when the files change. A failed read keeps the previous value."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class SettingError(Exception):
    """The server cannot start with a setting. The message is for the operator and contains no secret."""


class Reloaded(Generic[_T]):
    """A value that is read from files. It is safe to use from any thread. Each access checks the state of each file."""

    def __init__(self, paths: Sequence[Path], read: Callable[[], _T]):
        """Read the value for the first time.

        Args:
            paths: the files.
            read: reads the value from the files.

        Raises:
            SettingError: `read` failed. A later failure is logged instead, and the previous value stays in use.
        """
        self._paths = paths
        self._read = read
        self._lock = threading.Lock()
        # Taken before the files are read, because a file that changes in between must be reread at the next access.
        self._seen = self._look()
        self._value = read()

    @property
    def value(self) -> _T:
        """The value that the files contain now, or the previous one if they cannot be read."""
        with self._lock:
            if (now := self._look()) != self._seen:
                self._seen = now
                names = ", ".join(map(str, self._paths))
                try:
                    self._value = self._read()
                    _log.info("reread %s", names)
                except SettingError as error:
                    _log.error("%s could not be reread, the previous contents stay in use: %s", names, error)
            return self._value

    def _look(self) -> list[tuple[int, ...] | None]:
        return [_identity(path) for path in self._paths]


def read_file(path: Path) -> bytes:
    """Return the contents of a file.

    Raises:
        SettingError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from error


def _identity(path: Path) -> tuple[int, ...] | None:
    """Return a value that changes when the file is written or replaced. Return None if the file does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
