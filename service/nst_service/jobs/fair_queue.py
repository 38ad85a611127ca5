"""Start-time fair queuing of the jobs that share a device. This module is pure: no threads, no clocks.

Goyal, Vin & Cheng, "Start-time fair queuing" (SIGCOMM 1996): each flow has a virtual time. It grows by the device time
that the flow uses, divided by the weight of the flow. The flow with the smallest virtual time has the next turn. Flows
that always have work get device time in proportion to their weights, to within one turn of each. The length of a turn
need not be known beforehand.
"""

from collections.abc import Collection
from typing import Generic, TypeVar

Flow = TypeVar("Flow")


class FairQueue(Generic[Flow]):
    """Divides the time of a device among flows by weight."""

    def __init__(self) -> None:
        self._now = 0.0
        """The virtual time of the queue. No flow is behind it."""
        self._times: dict[Flow, float] = {}
        self._weights: dict[Flow, float] = {}

    def join(self, flow: Flow, weight: float) -> None:
        """Add a flow. It has neither a debt nor a claim for the time before."""
        self._times[flow] = self._now
        self._weights[flow] = weight

    def next(self, among: Collection[Flow] | None = None) -> Flow:
        """Return the flow with the smallest virtual time; of equal ones the one that joined first.

        Args:
            among: the flows that may have a turn; None for all of them.
        """
        return min(self._times if among is None else among, key=self._times.__getitem__)

    def charge(self, flow: Flow, seconds: float) -> None:
        """Charge a flow for the device time of a turn."""
        # A flow that joins next goes before this one, as if it had been there when this turn began.
        self._now = max(self._now, self._times[flow])
        self._times[flow] += seconds / self._weights[flow]

    def leave(self, flow: Flow) -> None:
        """Remove a flow.

        The virtual time of the queue catches up with the smallest one. So a flow that joins in its place does not go
        before the others once more.
        """
        del self._weights[flow]
        self._now = max(self._now, min(self._times.values()))
        del self._times[flow]

    def lead(self, flow: Flow, over: Flow) -> float:
        """Return the device time that a flow gets before it has caught up with another one; 0 if it is ahead of it."""
        return max(0.0, self._times[over] - self._times[flow]) * self._weights[flow]
