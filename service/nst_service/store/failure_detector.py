"""A failure detector by heartbeats: it tells which servers have died, without comparing clocks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Heartbeat:
    """The last change of a server's heartbeat count."""

    count: int
    seen_at: float
    """The time at which this process first saw the count, on its own clock."""


class FailureDetector:
    """Suspects the servers whose heartbeat count has not changed for a timeout.

    The steady clock of this process alone measures the timeout, from the moment it first saw the count. So neither a
    step of a clock nor a difference between the clocks of two machines makes a live server a suspect.
    """

    def __init__(self, timeout: float, clock: Callable[[], float] = time.monotonic):
        """Make a failure detector that has seen no server yet.

        Args:
            timeout: seconds without a heartbeat after which a server is suspected; 0 where no other server can be
                alive.
            clock: returns seconds that never go back.
        """
        self._timeout = timeout
        self._clock = clock
        self._last: dict[str, _Heartbeat] = {}

    def suspected(self, heartbeats: Mapping[str, int]) -> list[str]:
        """Return the servers that count as dead.

        Args:
            heartbeats: the heartbeat count of every other server, by its id.
        """
        now = self._clock()
        self._last = {
            server: last if (last := self._last.get(server)) and last.count == count else _Heartbeat(count, now)
            for server, count in heartbeats.items()
        }
        return [server for server, last in self._last.items() if now - last.seen_at >= self._timeout]
