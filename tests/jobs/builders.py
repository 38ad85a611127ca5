"""Jobs, and fakes of what is around them, for tests of `nst_service.jobs`."""

import asyncio
import dataclasses
import pickle
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from queue import SimpleQueue
from typing import Any

from nst_service.engine.estimate import Cost
from nst_service.engine.memory.fit import Memory
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, TransferSpec
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Accepted, Completed, JobResult, Reduced, ResultHeader, Timings
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.sink import Requeued
from nst_service.jobs.stored_request import FindPicture, ReadRequest, StoredRequest
from nst_service.jobs.throughput import Throughput
from nst_service.jobs.views import Durability
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy, Lease, StoredJob

from tests.limits import LIMITS as SMALL_LIMITS

LIMITS = dataclasses.replace(SMALL_LIMITS, max_iterations=10**5)

DURABILITY = Durability(checkpoint_seconds=3600, reattach_seconds=3600, retention_seconds=3600, is_alone=True)


class PlainCodec:
    """Serialises requests, and the sizes in events. No test of jobs reads anything else back."""

    def request(self, document: bytes, accepted_event: bytes, find_picture: FindPicture) -> TransferRequest:
        del accepted_event, find_picture
        request: TransferRequest = pickle.loads(document)
        return request

    def event(self, logged: LoggedEvent) -> bytes:
        size = (event.width, event.height) if isinstance(event := logged.event, Accepted | Reduced) else None
        return pickle.dumps(size)

    def result_size(self, event: bytes) -> Size | None:
        size: Size | None = pickle.loads(event)
        return size

    def success(self, header: ResultHeader, completed: Completed) -> bytes:
        del header
        return completed.stop_reason.encode()

    def failure(self, error: JobError) -> bytes:
        return str(error).encode()


async def submit(
    scheduler: Scheduler, request: TransferRequest, deadline: float | None = None, **fields: Any
) -> Job | StoredJob:
    """Submit a request to a scheduler as the service does."""
    return await scheduler.submit(read_request(request, **fields), deadline, request_id=fields.get("request_id"))


def read_request(request: TransferRequest, **fields: Any) -> ReadRequest:
    """Return a function that reads a request."""
    return lambda _: StoredRequest(request=request, document=pickle.dumps(request), pictures={}, **fields)


SPEC = TransferSpec(content=Picture.blank(Size(8, 6)), styles=(), options=TransferOptions(), output=OutputOptions())


def make_job(*, seconds: float = 10.0, memory: int = 1, **plan: Any) -> Job:
    """Return a job that is expected to take a time on its device; `plan` are fields of its JobPlan."""
    return Job(
        plan=JobPlan(**{"accepted_at": time.monotonic(), "expected_seconds": seconds} | plan),
        run_state=RunState(outline=SPEC.outline, cost=Cost(1.0, memory, None), remaining_seconds=seconds),
    )


def make_stored_job(job_id: str = "job", **fields: Any) -> StoredJob:
    """Return a queued job of the store."""
    defaults = {
        "id": job_id,
        "owner": "",
        "request_id": job_id,
        "request_digest": "",
        "disconnect_policy": DisconnectPolicy.KEEP_RUNNING,
        "deadline": None,
        "accepted_event": b"accepted",
        "size": (8, 6),
        "number": 1,
        "state": JobState.QUEUED,
        "epoch": 1,
        "lost_runs": 0,
        "cancel_requested": False,
        "outcome": None,
        "created_at": time.time(),
        "updated_at": time.time(),
        "finished_at": None,
    }
    return StoredJob(**defaults | fields)


def make_lease(job: Job, epoch: int = 1) -> Lease:
    return Lease(make_stored_job(job.id, epoch=epoch))


def make_result(stop_reason: StopReason = StopReason.ITERATIONS, data: bytes = b"picture") -> JobResult:
    return JobResult(
        header=ResultHeader(media_type="image/png", width=8, height=6, size_bytes=len(data), sha256=""),
        data=data,
        completed=Completed(
            stop_reason=stop_reason,
            iterations=1,
            total_loss=1.0,
            terms={},
            timings=Timings(queued=0.0, targets=0.0, optimize=0.0, encode=0.0),
        ),
    )


class FakeJobStore:
    """Has every method of AsyncJobStore. It stores nothing, remembers its calls, and answers as a test wants."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """The names of the methods that have begun, in order."""
        self.answers: dict[str, Any] = {}
        """The result of a method by its name, or the error that it raises; None if it is missing."""
        self.gates: defaultdict[str, asyncio.Event] = defaultdict(_open_gate)
        """Events that a method waits for before it returns."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def method(*arguments: Any, **keywords: Any) -> Any:
            del arguments, keywords
            self.calls.append(name)
            await self.gates[name].wait()
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return method


def _open_gate() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


class FakePlanner:
    """Decodes every job at once, when a gate is open, or raises an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.gate = _open_gate()
        self.cancelled = 0
        """The number of calls that were cancelled while the gate was closed."""

    async def render(self, *arguments: Any) -> TransferSpec:
        del arguments
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return SPEC


class FakeWorker:
    """A device that runs nothing."""

    is_restartable = False

    def __init__(self, device: str = "cpu", *, memory: int = 100, seconds_per_operation: float = 0.0):
        self.name = device
        self.memory = memory
        self.capacity = Memory(memory)
        self.layers = ("relu1_1",)
        self.throughput = Throughput()
        if seconds_per_operation:
            self.throughput.observe(1.0, seconds_per_operation)
        self.joined: list[tuple[Job, Any, Any]] = []
        """The job, the snapshot and the sink of each run."""
        self.is_closed = False

    def warm_up(self) -> None:
        pass

    def serve(self) -> bool:
        return True

    def join(self, job: Job, spec: TransferSpec, snapshot: Any, sink: Any) -> None:
        del spec
        self.joined.append((job, snapshot, sink))

    def close(self) -> None:
        self.is_closed = True


class FakeRemoteDevice(FakeWorker):
    """A device that can be lost and comes back, and that runs nothing."""

    is_restartable = True

    def __init__(self, device: str = "ray-1", **settings: Any):
        super().__init__(device, **settings)
        self.refusals: list[Exception] = []
        """The errors that the next calls of `warm_up` raise."""
        self.allowed = threading.Event()
        """Lets `warm_up` return."""
        self.allowed.set()
        self._ends: SimpleQueue[bool] = SimpleQueue()

    def warm_up(self) -> None:
        self.allowed.wait()
        if self.refusals:
            raise self.refusals.pop(0)

    def serve(self) -> bool:
        return self._ends.get()

    def lose(self) -> None:
        """Make the device fail, after its jobs have left it."""
        while self.joined:
            *_, sink = self.joined.pop()
            sink.leave(Requeued(None, is_lost=True))
        self._ends.put(False)

    def close(self) -> None:
        super().close()
        self.allowed.set()
        self._ends.put(True)
