"""The directory of a server that keeps its jobs to itself."""

import contextlib
import fcntl
import os
from pathlib import Path

from nst_service.store.errors import StoreInUseError
from nst_service.store.failures import system_failure


def make_private(path: Path) -> None:
    """Make a directory for this user alone where it does not exist: pictures are nobody else's business.

    Raises:
        StoreError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise system_failure(error) from error


class ExclusiveDirectory:
    """Keeps every other process out of a directory, until it is closed or this process ends, however it ends."""

    def __init__(self, path: Path):
        """Take a directory.

        Raises:
            StoreInUseError: another process has it.
            StoreError: it cannot be written to.
        """
        try:
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise system_failure(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise StoreInUseError from error

    def close(self) -> None:
        """Let others in."""
        with contextlib.suppress(OSError):
            os.close(self._lock)
