"""The devices of a server: their threads, the jobs on each, and a forecast of their room for other jobs."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.memory.fit import Memory
from nst_service.jobs.autoscaling import Demand
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.device import Device, DeviceUnavailableError
from nst_service.jobs.forecast import Span, forecast
from nst_service.jobs.job import Job
from nst_service.jobs.observer import DeviceFailed, DeviceLost, DeviceReady, DeviceRemoved, Observer
from nst_service.jobs.placement import Claim, Room, placements

_RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest time in seconds after which a refused client is asked to try again."""
_RESTART_SECONDS = (0.5, 30.0)
"""The shortest and the longest time in seconds after which a device is tried again that cannot be used."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class PooledDevice:
    """A device, its thread, and the jobs that have a place on it."""

    worker: Device
    thread: ThreadPoolExecutor = field(init=False)
    jobs: list[Job] = field(default_factory=list)
    is_ready: bool = False
    """Whether jobs can run on the device now."""
    was_ready: bool = False
    """Whether the memory and the speed of the device are known."""
    is_leaving: bool = False
    """Whether the device is being removed."""
    has_failed: bool = False
    """Whether only a new process can compute on the device again."""
    is_vacant: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no job has a place on the device."""

    def __post_init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, f"nst-{self.worker.name}")
        # The devices of this process are warmed up before the first job arrives.
        self.is_ready = self.was_ready = not self.worker.is_restartable
        self.is_vacant.set()

    @property
    def is_open(self) -> bool:
        """Whether the device takes further jobs."""
        return self.is_ready and not (self.is_leaving or self.has_failed)

    def place(self, job: Job) -> None:
        """Give a job a place on the device."""
        self.jobs.append(job)
        self.is_vacant.clear()

    def vacate(self, job: Job) -> None:
        """Take the place from a job."""
        self.jobs.remove(job)
        if not self.jobs:
            self.is_vacant.set()


class DevicePool:
    """Knows which jobs have a place on which device, and forecasts when others will. It belongs to the event loop.

    Devices can be added and removed at any time. A device that is lost is warmed up again, if it can be.
    """

    def __init__(self, devices: Sequence[Device], max_running: int, observer: Observer):
        """Make a pool.

        Args:
            devices: the devices, all with the same weights.
            max_running: the number of jobs that may share a device.
            observer: notified of devices that come, leave and fail.
        """
        self._devices = [PooledDevice(device) for device in devices]
        self._max_running = max_running
        self._observer = observer
        self._operations = BackgroundTasks()
        self._is_started = self._is_closed = False
        self._last_known: PooledDevice | None = None
        """The device that was removed last."""
        self.failed = asyncio.Event()
        """Set when no device is left that this process can compute on."""
        self.ready = asyncio.Event()
        """Set while at least one device can run jobs."""
        self.lost = asyncio.Event()
        """Set while no device can run jobs, once one could."""
        self.changed = asyncio.Event()
        """Set when a device may take jobs that it did not take before. Who has placed jobs there clears it."""

    @property
    def devices(self) -> list[PooledDevice]:
        """The devices, whether jobs can run on them or not."""
        return list(self._devices)

    @property
    def names(self) -> list[str]:
        """The names of the devices."""
        return [device.worker.name for device in self._devices]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network on the devices, in order."""
        return self._known[0].worker.layers

    @property
    def running(self) -> list[Job]:
        """The jobs that have a place on a device."""
        return [job for device in self._devices for job in device.jobs]

    @property
    def idle_devices(self) -> int:
        """The number of devices that take jobs and have none."""
        return sum(device.is_open and not device.jobs for device in self._devices)

    def demand(self, waiting: Sequence[Job]) -> Demand:
        """Return what the devices are, and what the waiting jobs need."""
        staying = [device for device in self._devices if not device.is_leaving]
        return Demand(
            devices=len(staying),
            ready=sum(device.is_ready for device in staying),
            idle=sum(not device.jobs for device in staying),
            queue_seconds=max((span.start for span in self.forecast(waiting)), default=0.0) if self._known else 0.0,
        )

    @property
    def idle_device(self) -> str | None:
        """The name of a device that can be removed without moving a job; preferably one that is not ready."""
        idle = [device for device in self._devices if not (device.jobs or device.is_leaving)]
        return min(idle, key=lambda device: device.is_ready).worker.name if idle else None

    @property
    def are_isolated(self) -> bool:
        """Whether a job that makes its device fail harms only the jobs on the same device."""
        return all(device.worker.is_restartable for device in self._devices)

    @property
    def capacity(self) -> Memory:
        """The memory that a job can have on any of the devices."""
        return Memory.common(device.worker.capacity for device in self._known)

    def expected_seconds(self, cost: Cost) -> float:
        """Return the seconds that a job is expected to take on the slowest device."""
        return max(device.worker.throughput.expected(cost) for device in self._known)

    @property
    def _open(self) -> list[PooledDevice]:
        return [device for device in self._devices if device.is_open]

    @property
    def _known(self) -> list[PooledDevice]:
        """The devices whose memory and speed are known; if there are none any more, the one that was removed last."""
        known = [
            device for device in self._devices if device.was_ready and not (device.has_failed or device.is_leaving)
        ]
        known = known or [device for device in self._devices if device.was_ready]
        return known or [device for device in (self._last_known,) if device]

    async def start(self) -> None:
        """Warm up every device of this process, wait until a device is ready, and let the devices serve.

        Raises:
            Exception: a device of this process cannot be warmed up.
        """
        self._is_started = True
        loop = asyncio.get_running_loop()
        local = [device for device in self._devices if not device.worker.is_restartable]
        await asyncio.gather(*(loop.run_in_executor(device.thread, device.worker.warm_up) for device in local))
        if self._is_closed:
            return
        for device in self._devices:
            self._operations.spawn(self._operate(device))
        await self.ready.wait()

    def add(self, device: Device) -> None:
        """Add a device. It takes jobs as soon as it is warm."""
        pooled = PooledDevice(device)
        pooled.is_ready = pooled.was_ready = False
        self._devices.append(pooled)
        if self._is_started:
            self._operations.spawn(self._operate(pooled))

    async def remove(self, name: str) -> None:
        """Remove a device after the present steps of its jobs, which go on elsewhere from there.

        Raises:
            ValueError: no device has this name.
        """
        device = next((device for device in self._devices if device.worker.name == name), None)
        if device is None:
            raise ValueError(f"no device is named {name!r}; the devices are {', '.join(self.names) or 'none'}")
        device.is_leaving = True
        self._note_readiness()
        for job in device.jobs:
            job.control.must_leave = True
        await device.is_vacant.wait()
        if device in self._devices:
            self._devices.remove(device)
            self._last_known = device if device.was_ready else self._last_known
            self._stop(device)
            self._observer.notify(DeviceRemoved(name))

    async def _operate(self, device: PooledDevice) -> None:
        """Let a device serve, and warm it up before that and after each loss, until it is closed or has failed."""
        shortest, longest = _RESTART_SECONDS
        pause = shortest / 2
        while not (self._is_closed or device.is_leaving):
            if not device.is_ready and not await self._warmed_up(device):
                pause = min(2 * pause, longest)
                await asyncio.sleep(pause)
                continue
            pause = shortest / 2
            self._note_ready(device)
            works = await self._served(device)
            if works or self._is_closed:
                return
            self.note_failure(device)
            if device.has_failed:
                return

    async def _warmed_up(self, device: PooledDevice) -> bool:
        """Warm up a device, and return whether jobs can run on it."""
        try:
            await asyncio.get_running_loop().run_in_executor(device.thread, device.worker.warm_up)
        except DeviceUnavailableError as error:
            _log.warning("device %s cannot be used now: %s", device.worker.name, error)
            return False
        except Exception:
            _log.exception("device %s cannot be warmed up", device.worker.name)
            return False
        return not device.is_leaving

    async def _served(self, device: PooledDevice) -> bool:
        """Return whether a device that has served still works."""
        try:
            return await asyncio.get_running_loop().run_in_executor(device.thread, device.worker.serve)
        except Exception:
            _log.critical("device %s has died", device.worker.name, exc_info=True)
            return False

    def _note_ready(self, device: PooledDevice) -> None:
        if not device.is_ready:
            device.is_ready = device.was_ready = True
            _log.info("device %s is ready", device.worker.name)
            self._observer.notify(DeviceReady(device.worker.name))
        self._note_readiness()
        self.changed.set()

    def note_failure(self, device: PooledDevice) -> None:
        """Record that a device has failed. This may be called several times for the same failure."""
        if device.has_failed or not device.is_ready:
            return
        device.is_ready = False
        if not device.worker.is_restartable:
            device.has_failed = True
            self._observer.notify(DeviceFailed(device.worker.name))
            if all(other.has_failed for other in self._devices):
                self.failed.set()
        else:
            self._observer.notify(DeviceLost(device.worker.name, len(self._open)))
            if not self._open:
                _log.error("no device is left that runs jobs: all jobs wait")
        self._note_readiness()

    def _note_readiness(self) -> None:
        if any(device.is_open for device in self._devices):
            self.lost.clear()
            self.ready.set()
        elif self.ready.is_set():
            self.ready.clear()
            self.lost.set()

    def place(self, waiting: Sequence[Job]) -> list[tuple[Job, PooledDevice]]:
        """Place those of the waiting jobs for which a device has room now, and return each with its device."""
        devices = self._open
        if not devices:
            return []
        placed = [(waiting[index], devices[number]) for index, number in placements(*self._claims(devices, waiting))]
        for job, device in placed:
            device.place(job)
        return placed

    def forecast(self, waiting: Sequence[Job]) -> list[Span]:
        """Return when each of the waiting jobs is expected to start and end.

        If no device takes jobs now, the devices that are known are expected to be back at once.
        """
        return forecast(*self._claims(self._open or self._known, waiting))

    def seconds_to_next_turn(self) -> float:
        """Return the longest time in seconds that a job that starts now waits for the present steps of the others."""
        return min(
            max((job.run_state.next_seconds for job in device.jobs), default=0.0)
            for device in self._open or self._known
        )

    def retry_after(self, waiting: Sequence[Job]) -> float:
        """Return the expected seconds until there is room in the queue; without a queue, until a device is idle."""
        devices = self._open or self._known
        idle = min(sum(job.run_state.remaining_seconds for job in device.jobs) for device in devices)
        least, most = _RETRY_SECONDS
        return min(max(min((span.start for span in self.forecast(waiting)), default=idle), least), most)

    def close(self) -> list[Job]:
        """Abandon the jobs on the devices, stop the devices after their present steps, and return these jobs."""
        self._is_closed = True
        abandoned = self.running
        for job in abandoned:
            job.control.is_abandoned = True
        for device in self._devices:
            for job in list(device.jobs):
                device.vacate(job)
            self._stop(device)
        self._operations.cancel()
        return abandoned

    def _stop(self, device: PooledDevice) -> None:
        device.worker.close()
        device.thread.shutdown(wait=False)

    def _claims(
        self, devices: Sequence[PooledDevice], waiting: Sequence[Job]
    ) -> tuple[list[list[Claim]], list[Claim], list[Room]]:
        """Return the claims of the running and of the waiting jobs, and the room of the devices."""
        now = time.monotonic()
        return (
            [[job.claim(now) for job in device.jobs] for device in devices],
            [job.claim(now) for job in waiting],
            [Room(jobs=self._max_running, memory=device.worker.memory) for device in devices],
        )
