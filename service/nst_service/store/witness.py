"""Who is alive, told without comparing clocks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Sighting:
    beats: int
    since: float


class Witness:
    """Watches the heartbeats of other servers: one whose count stands still for too long is dead.

    How long that is, is measured by the steady clock of this process alone, from when it first saw the count. So no
    step of a clock kills a server, and no difference between the clocks of two machines does.
    """

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic):
        """Make a witness that has seen nothing.

        Args:
            patience: seconds for which a count may stand still; 0 for those who know that every other server is dead.
            clock: seconds, never going back.
        """
        self._patience = patience
        self._clock = clock
        self._seen: dict[str, _Sighting] = {}

    def silent(self, beats: Mapping[str, int]) -> list[str]:
        """Return the servers that are dead.

        Args:
            beats: how many heartbeats every server has had.
        """
        now = self._clock()
        self._seen = {
            server: sighting
            if (sighting := self._seen.get(server)) and sighting.beats == count
            else _Sighting(count, now)
            for server, count in beats.items()
        }
        return [server for server, sighting in self._seen.items() if now - sighting.since >= self._patience]
