"""The devices of a server: their threads, the jobs on each, and a forecast of their room for other jobs."""

import asyncio
import functools
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.memory.fit import Memory
from nst_service.jobs.forecast import Span, forecast
from nst_service.jobs.job import Job
from nst_service.jobs.observer import DeviceFailed, Observer
from nst_service.jobs.placement import Claim, Room, placements
from nst_service.jobs.worker import DeviceWorker

_RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest time in seconds after which a refused client is asked to try again."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class PooledDevice:
    """A device, its thread, and the jobs that have a place on it."""

    worker: DeviceWorker
    thread: ThreadPoolExecutor = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    has_failed: bool = False

    def __post_init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, f"nst-{self.worker.device}")


class DevicePool:
    """Knows which jobs have a place on which device, and forecasts when others will. It belongs to the event loop."""

    def __init__(self, workers: Sequence[DeviceWorker], max_running: int, observer: Observer):
        """Make a pool.

        Args:
            workers: one worker for each device, all with the same weights.
            max_running: the number of jobs that may share a device.
            observer: notified of devices that fail.
        """
        self._devices = [PooledDevice(worker) for worker in workers]
        self._max_running = max_running
        self._observer = observer
        self._is_closed = False
        self.failed = asyncio.Event()
        """Set when a device has failed. Only a new process can compute on it again."""

    @property
    def names(self) -> list[str]:
        """The names of the devices."""
        return [str(device.worker.device) for device in self._devices]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network on the devices, in order."""
        return self._devices[0].worker.layers

    @property
    def running(self) -> list[Job]:
        """The jobs that have a place on a device."""
        return [job for device in self._devices for job in device.jobs]

    @property
    def idle_devices(self) -> int:
        """The number of devices without a job."""
        return sum(not device.jobs for device in self._devices)

    @property
    def capacity(self) -> Memory:
        """The memory that a job can have on any of the devices."""
        return Memory.common(device.worker.capacity for device in self._devices)

    def expected_seconds(self, cost: Cost) -> float:
        """Return the seconds that a job is expected to take on the slowest device."""
        return max(device.worker.throughput.expected(cost) for device in self._devices)

    async def start(self) -> None:
        """Warm up every device, then let the workers serve."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(device.thread, device.worker.warm_up) for device in self._devices))
        if self._is_closed:
            return
        for device in self._devices:
            serving = loop.run_in_executor(device.thread, device.worker.serve)
            serving.add_done_callback(functools.partial(self._check_end, device))

    def _check_end(self, device: PooledDevice, serving: "asyncio.Future[bool]") -> None:
        if serving.cancelled():
            return
        if error := serving.exception():
            _log.critical("the worker of device %s has died", device.worker.device, exc_info=error)
        if error or not serving.result():
            self.note_failure(device)

    def note_failure(self, device: PooledDevice) -> None:
        """Record that a device has failed."""
        if not device.has_failed:
            device.has_failed = True
            self.failed.set()
            self._observer.notify(DeviceFailed(str(device.worker.device)))

    def place(self, waiting: Sequence[Job]) -> list[tuple[Job, PooledDevice]]:
        """Place those of the waiting jobs for which a device has room now, and return each with its device."""
        placed = [(waiting[index], self._devices[number]) for index, number in placements(*self._claims(waiting))]
        for job, device in placed:
            device.jobs.append(job)
        return placed

    def forecast(self, waiting: Sequence[Job]) -> list[Span]:
        """Return when each of the waiting jobs is expected to start and end."""
        return forecast(*self._claims(waiting))

    def seconds_to_next_turn(self) -> float:
        """Return the longest time in seconds that a job that starts now waits for the present steps of the others."""
        return min(max((job.run_state.next_seconds for job in device.jobs), default=0.0) for device in self._devices)

    def retry_after(self, waiting: Sequence[Job]) -> float:
        """Return the expected seconds until there is room in the queue; without a queue, until a device is idle."""
        idle = min(sum(job.run_state.remaining_seconds for job in device.jobs) for device in self._devices)
        least, most = _RETRY_SECONDS
        return min(max(min((span.start for span in self.forecast(waiting)), default=idle), least), most)

    def close(self) -> list[Job]:
        """Abandon the jobs on the devices, stop the workers after their present steps, and return these jobs."""
        self._is_closed = True
        abandoned = self.running
        for job in abandoned:
            job.control.is_abandoned = True
        for device in self._devices:
            device.jobs.clear()
            device.worker.close()
            device.thread.shutdown(wait=False)
        return abandoned

    def _claims(self, waiting: Sequence[Job]) -> tuple[list[list[Claim]], list[Claim], list[Room]]:
        """Return the claims of the running and of the waiting jobs, and the room of the devices."""
        now = time.monotonic()
        return (
            [[job.claim(now) for job in device.jobs] for device in self._devices],
            [job.claim(now) for job in waiting],
            [Room(jobs=self._max_running, memory=device.worker.memory) for device in self._devices],
        )
