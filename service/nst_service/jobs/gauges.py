"""The present state of a server, in numbers: its queue, its devices and its followers."""

import time
from dataclasses import dataclass

from nst_service.engine.devices import used_bytes
from nst_service.jobs.availability import Availability
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.followers import Followers
from nst_service.jobs.job_table import JobTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGauges:
    """The present state of a device."""

    name: str
    is_up: bool
    """Whether jobs can run on the device now."""
    jobs: int
    """The number of jobs that have a place on the device."""
    available_bytes: int
    """Memory that all jobs can have together, in bytes."""
    planned_bytes: int
    """Memory that the jobs on the device are estimated to take, in bytes."""
    used_bytes: int | None
    """Memory of the device that is in use, in bytes; None if that is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerGauges:
    """The present state of a server."""

    is_serving: bool
    """Whether the server accepts jobs."""
    is_draining: bool
    """Whether the server is about to end."""
    waiting: int
    """The number of waiting jobs."""
    queue_length: int
    """The number of waiting jobs, including the requests that are being admitted."""
    oldest_waiting_seconds: float
    """Seconds since the acceptance of the job that waits longest; 0 if no job waits."""
    followers: int
    """The number of calls of this server that follow jobs."""
    devices: tuple[DeviceGauges, ...]


class Gauges:
    """Reads the present state of a server. Any thread may read it."""

    def __init__(self, table: JobTable, pool: DevicePool, availability: Availability, followers: Followers):
        self._table = table
        self._followers = followers
        self._pool = pool
        self._availability = availability

    def read(self) -> ServerGauges:
        """Return the present state."""
        # Each list is copied in one step, because the event loop may change it meanwhile.
        waiting, now = list(self._table.waiting), time.monotonic()
        return ServerGauges(
            is_serving=self._availability.is_serving,
            is_draining=self._availability.is_draining,
            waiting=len(waiting),
            queue_length=self._table.queue_length,
            oldest_waiting_seconds=max((now - job.plan.accepted_at for job in waiting), default=0.0),
            followers=self._followers.calls,
            devices=tuple(
                DeviceGauges(
                    name=device.worker.name,
                    is_up=device.is_ready and not device.has_failed,
                    jobs=len(device.jobs),
                    available_bytes=device.worker.memory,
                    planned_bytes=sum(job.run_state.cost.peak_bytes for job in list(device.jobs)),
                    used_bytes=used_bytes(device.worker.name),
                )
                for device in self._pool.devices
            ),
        )
