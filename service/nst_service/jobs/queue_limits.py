"""The limits of what waits and runs on a server at once."""

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from nst_service.jobs.errors import QueueFullError
from nst_service.jobs.shared_bytes import SharedBytes

_RETRY_SECONDS = 1.0
"""Seconds after which there may be room for another request."""
_WAIT_SECONDS = 120.0
"""Seconds for which a request waits for the room that the pictures need that it names."""
_PATIENCE = 10.0
"""Seconds for which a request can be read while another owner waits who has fewer bytes here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """The limits that all callers share."""

    max_queued: int
    """The number of jobs that may wait."""
    max_pending_bytes: int
    """The total size in bytes of the requests that may wait to be decoded. One request is always accepted."""
    max_running: int
    """The number of jobs that may share a device."""
    max_picture_bytes: int = sys.maxsize
    """The bytes of the decoded pictures of all jobs that run. One job always may. Devices that compute in the memory of
    the machine count them by themselves."""


class PendingBytes:
    """Limits the bytes of the requests that are not jobs yet. They are in memory, whatever they ask for."""

    def __init__(self, max_bytes: int):
        """Set the limit.

        Args:
            max_bytes: the total size of all requests. A single request may be larger.
        """
        self.shared = SharedBytes(max_bytes, patience=_PATIENCE, spares_own=True)
        """The bytes themselves. A request that is being read has as many as the largest request, in turns."""

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count the bytes of a request until the context ends.

        Raises:
            QueueFullError: there is no room for them now.
        """
        if not self.shared.has_room(size):
            raise QueueFullError(f"requests of {self.shared.held} bytes", _RETRY_SECONDS)
        with self.shared.hold(size):
            yield

    @contextlib.asynccontextmanager
    async def turn(self, size: int, owner: str) -> AsyncIterator[None]:
        """Wait for room, in turns between the owners, and count bytes until the context ends.

        Raises:
            QueueFullError: there was no room in time.
        """
        has_begun = False
        try:
            # What is read from the store needs no patience with a client.
            async with self.shared.turn(size, owner, seconds=_WAIT_SECONDS, evict=lambda: None):
                has_begun = True
                yield
        except TimeoutError as error:
            if has_begun:
                raise
            raise QueueFullError(f"requests of {self.shared.held} bytes", _RETRY_SECONDS) from error
