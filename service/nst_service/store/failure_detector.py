"""A failure detector by heartbeats: it tells which servers have died, without comparing clocks."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_LONGEST_PAUSE = 1 / 3
"""The longest pause between two looks that counts as looking, as a share of the timeout."""


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

    Time counts only while this process looks, since nobody knows whether a server was silent that nobody looked at. So
    the timeout begins anew for every server after a look that has failed, and after a pause between two looks.
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
        self._looked_at = -math.inf

    def suspected(self, heartbeats: Mapping[str, int]) -> list[str]:
        """Return the servers that count as dead.

        Args:
            heartbeats: the heartbeat count of every other server, by its id.
        """
        now = self._clock()
        if now - self._looked_at > self._timeout * _LONGEST_PAUSE:
            self.forget()
        self._looked_at = now
        self._last = {
            server: last if (last := self._last.get(server)) and last.count == count else _Heartbeat(count, now)
            for server, count in heartbeats.items()
        }
        return [server for server, last in self._last.items() if now - last.seen_at >= self._timeout]

    def forget(self) -> None:
        """Begin the timeout of every server anew, because this process could not see their heartbeats."""
        self._last = {}
