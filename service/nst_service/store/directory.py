"""The directory of a server that shares its jobs with no other server."""

import contextlib
import fcntl
import os
from pathlib import Path

from nst_service.store.errors import StoreInUseError
from nst_service.store.failures import file_failure
from nst_service.store.location import Location


def make_private(path: Path) -> None:
    """Create a directory that only this user can read, if it does not exist, since pictures are private.

    Raises:
        StoreError: the directory cannot be created.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise file_failure(error, Location(f"the directory {path}")) from error


class ExclusiveDirectory:
    """A lock that keeps other processes out of a directory until it is closed or this process ends in any way."""

    def __init__(self, path: Path):
        """Lock a directory.

        Raises:
            StoreInUseError: another process has locked it.
            StoreError: the directory cannot be written to.
        """
        try:
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise file_failure(error, Location(f"the directory {path}")) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise StoreInUseError(str(path)) from error
        except OSError as error:
            os.close(self._lock)
            raise file_failure(error, Location(f"the directory {path}")) from error

    def close(self) -> None:
        """Unlock the directory."""
        with contextlib.suppress(OSError):
            os.close(self._lock)
