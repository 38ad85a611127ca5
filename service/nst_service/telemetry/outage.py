"""Outages of the store: when one begins, and when it has ended. This module is pure."""

from dataclasses import dataclass

from nst_service.jobs.observer import StoreCalled
from nst_service.store.errors import StoreOutageError

_SETTLED_SECONDS = 3.0
"""Seconds without a failure after which an outage has ended, if each operation that failed has succeeded again."""
_QUIET_SECONDS = 30.0
"""Seconds without a failure after which an outage has ended, even if an operation that failed was not tried again."""


@dataclass(frozen=True, slots=True)
class OutageBegan:
    """The first operation of the store has failed."""

    operation: str
    """The operation that failed."""
    error: StoreOutageError


@dataclass(frozen=True, slots=True)
class OutageEnded:
    """The store works again."""

    seconds: float
    """Seconds from the first failure to the last one."""
    failures: int
    """The number of operations that have failed meanwhile."""


class Outage:
    """Follows the operations of the store.

    An outage begins with a failure. It ends when each operation that failed has succeeded again, or when nothing has
    failed for half a minute while other operations succeeded. A server sends a heartbeat to its store every second, so
    that the end is noticed soon.
    """

    def __init__(self) -> None:
        self.is_ongoing = False
        """Whether the store is away."""
        self._failing: set[str] = set()
        self._began_at = self._failed_at = 0.0
        self._failures = 0

    def note(self, call: StoreCalled, now: float) -> OutageBegan | OutageEnded | None:
        """Take note of an operation; return whether an outage begins or ends with it.

        Args:
            call: the operation.
            now: the time in seconds, on any clock that never goes back.
        """
        if isinstance(call.error, StoreOutageError):
            begins, self.is_ongoing = not self.is_ongoing, True
            if begins:
                self._began_at, self._failures = now, 0
            self._failing.add(call.operation)
            self._failed_at = now
            self._failures += 1
            return OutageBegan(call.operation, call.error) if begins else None
        self._failing.discard(call.operation)
        quiet_seconds = now - self._failed_at
        if not self.is_ongoing or quiet_seconds < (_QUIET_SECONDS if self._failing else _SETTLED_SECONDS):
            return None
        self.is_ongoing = False
        self._failing.clear()
        return OutageEnded(self._failed_at - self._began_at, self._failures)
