"""Whose turn it is on a device: start-time fair queuing of the jobs that share it. Pure: no threads, no clocks.

Goyal, Vin & Cheng, "Start-time fair queuing" (SIGCOMM 1996): every sharer has a virtual time, which grows by what it
used of the device over its weight, and the one furthest behind goes next. So sharers that always have work get device
time in proportion to their weights, to within one turn of each, and none has to say beforehand how long its turns are.
"""

from typing import Generic, TypeVar

Sharer = TypeVar("Sharer")


class FairQueue(Generic[Sharer]):
    """Divides the time of a device among sharers by weight."""

    def __init__(self) -> None:
        self._now = 0.0
        """Virtual time: nobody who is here is behind it."""
        self._times: dict[Sharer, float] = {}
        self._weights: dict[Sharer, float] = {}

    def join(self, sharer: Sharer, weight: float) -> None:
        """Take a sharer in, neither with a debt nor with a claim to what the others used before."""
        self._times[sharer] = self._now
        self._weights[sharer] = weight

    def next(self) -> Sharer:
        """Return whose turn it is: who is furthest behind, the one that came first where several are."""
        return min(self._times, key=self._times.__getitem__)

    def charge(self, sharer: Sharer, seconds: float) -> None:
        """Take note that a sharer had a turn and used so much of the device."""
        # Who comes now is to go before whoever had the last turn, as if it had been there when that turn began.
        self._now = max(self._now, self._times[sharer])
        self._times[sharer] += seconds / self._weights[sharer]

    def leave(self, sharer: Sharer) -> None:
        """Let a sharer go. Whoever takes its place goes on from its time, so that the rest is not passed over twice."""
        del self._weights[sharer]
        self._now = max(self._now, min(self._times.values()))
        del self._times[sharer]

    def lead(self, sharer: Sharer, over: Sharer) -> float:
        """Return how much of the device a sharer gets before it has caught up with another; 0 where it is ahead."""
        return max(0.0, self._times[over] - self._times[sharer]) * self._weights[sharer]
