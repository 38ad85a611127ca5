"""The number of devices that a server wants of a cluster, by the time that its jobs wait. This module is pure."""

from dataclasses import dataclass

_ADD_QUEUE_SECONDS = 10.0
"""Expected seconds of the longest wait in the queue above which another device is added."""
_REMOVE_IDLE_SECONDS = 120.0
"""Seconds for which a device has been too many before it is removed. It takes a while until another one is warm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a server has, and what its jobs need."""

    devices: int
    """The number of devices, including those that are not ready."""
    ready: int
    """The number of devices that are ready."""
    idle: int
    """The number of devices that have no job, including those that are not ready."""
    queue_seconds: float
    """Expected seconds until the last of the waiting jobs starts; 0 if none waits."""


class Autoscaler:
    """Decides when a server takes another device, and when it gives one back."""

    def __init__(self, least: int, most: int):
        """Make an autoscaler for at least and at most a number of devices."""
        self._least = least
        self._most = most
        self._idle_since: float | None = None

    def decide(self, demand: Demand, now: float) -> int:
        """Return 1 to add a device, -1 to remove an idle one, or 0.

        Args:
            demand: the demand now.
            now: the time in seconds on a clock that never goes back.
        """
        if demand.devices < self._least:
            return 1
        if demand.queue_seconds > 0 or not demand.idle:
            self._idle_since = None
            # One that is still to come is waited for, because the cluster may have no place for more.
            is_complete = demand.ready == demand.devices
            is_needed = demand.queue_seconds > _ADD_QUEUE_SECONDS and is_complete
            return 1 if is_needed and demand.devices < self._most else 0
        if self._idle_since is None:
            self._idle_since = now
        if demand.devices > self._least and now - self._idle_since >= _REMOVE_IDLE_SECONDS:
            self._idle_since = now
            return -1
        return 0
