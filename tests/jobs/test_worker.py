"""Jobs that share a device do not affect each other. The worker runs in the thread of the test."""

import dataclasses
import gc
import io
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nst_service.engine.choices import Init, OptimizerKind
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory
from nst_service.engine.memory.footprint import least_bytes
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import Iterate, optimize, transfer
from nst_service.engine.options import Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, TransferSpec, prepare
from nst_service.jobs import run as run_module
from nst_service.jobs.errors import DoesNotFitError, JobCancelledError, JobError, JobFailedError
from nst_service.jobs.events import (
    Completed,
    Event,
    JobResult,
    Preparing,
    Progress,
    Reduced,
    ResultChunk,
    ResultHeader,
)
from nst_service.jobs.fair_queue import FairQueue
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.run import Run
from nst_service.jobs.sink import Outcome, Requeued
from nst_service.jobs.throughput import Throughput
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import StopReason
from PIL import Image

from tests.jobs.builders import LIMITS

MakeRequest = Callable[..., TransferRequest]

_LONG = 600.0
"""Seconds that no test waits for."""


@dataclass(eq=False)
class RecordingSink:
    """A job, and the sink of its run, which remembers every report."""

    job: Job
    on_event: Callable[["RecordingSink", Event], None]
    on_leave: Callable[[], None]
    events: list[Event] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    outcome: StopReason | Requeued | JobError | None = None

    def publish(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(self, event)

    def shrunk(self, reduced: Reduced | None) -> None:
        if reduced:
            self.events.append(reduced)

    def save(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def leave(self, outcome: Outcome) -> None:
        if isinstance(outcome, JobResult):
            self.outcome = outcome.completed.stop_reason
            self.events += outcome.events()
        else:
            self.outcome = outcome
        self.on_leave()

    @property
    def file(self) -> bytes:
        return b"".join(event.data for event in self.events if isinstance(event, ResultChunk))

    @property
    def iterations(self) -> int:
        return sum(isinstance(event, Progress) for event in self.events)

    @property
    def preparing(self) -> list[Preparing]:
        return [event for event in self.events if isinstance(event, Preparing)]


def job_of(spec: TransferSpec, *, seconds: float = 1.0, deadline: float | None = None) -> Job:
    return Job(
        plan=JobPlan(accepted_at=time.monotonic(), deadline=deadline, expected_seconds=seconds),
        run_state=RunState(outline=spec.outline, cost=estimate(spec.outline), remaining_seconds=seconds),
    )


class Device:
    """A worker that serves in the thread of the test until its last job has left."""

    def __init__(self, model: Vgg19, limits: Limits):
        self.worker = DeviceWorker(model)
        self.worker.memory = 2**30
        self.order: list[RecordingSink] = []
        """The jobs in the order of their Progress events."""
        self._limits = limits
        self._open = 0

    def join(
        self,
        request: TransferRequest,
        *,
        seconds: float = 1.0,
        deadline: float | None = None,
        size: Size | None = None,
        snapshot: Snapshot | None = None,
        checkpoint: float = math.inf,
        on_preparing: Callable[[], None] = lambda: None,
        on_progress: Callable[[], None] = lambda: None,
    ) -> RecordingSink:
        spec = self.prepared(request, size)
        job = job_of(spec, seconds=seconds, deadline=deadline)
        job.control.next_checkpoint = checkpoint

        def note(followed: RecordingSink, event: Event) -> None:
            if isinstance(event, Progress):
                self.order.append(followed)
                on_progress()
            elif isinstance(event, Preparing):
                on_preparing()

        def leave() -> None:
            self._open -= 1
            if not self._open:
                self.worker.close()

        followed = RecordingSink(job, note, leave)
        self._open += 1
        self.worker.join(job, spec, snapshot, followed)
        return followed

    def prepared(self, request: TransferRequest, size: Size | None) -> TransferSpec:
        spec = prepare(request, self._limits, LAYERS)
        return spec.reduced(size) if size else spec


@pytest.fixture
def _no_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn is a step of the optimiser. The targets of a scale are computed together with its first step."""
    monkeypatch.setattr(run_module, "transfer", optimize)


@pytest.fixture
def _equal_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn is charged equally, however long the machine takes for it."""
    charge = FairQueue.charge
    monkeypatch.setattr(FairQueue, "charge", lambda share, run, _seconds: charge(share, run, 1.0))


@pytest.fixture
def device(model: Vgg19, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(run_module, "PROGRESS_INTERVAL", 0.0)
    return Device(model, limits)


def alone(device: Device, request: TransferRequest) -> RecordingSink:
    followed = device.join(request)
    device.worker.serve()
    assert followed.outcome is StopReason.ITERATIONS
    return followed


def failing(error: Exception, *, size: int, after: int) -> Callable[..., Iterator[Any]]:
    """Return a transfer that fails in one of its steps if the picture has this width."""

    def run(*arguments: Any) -> Iterator[Any]:
        for step in transfer(*arguments):
            if arguments[0].content.width == size and isinstance(step, Iterate) and step.iteration > after:
                raise error
            yield step

    return run


@pytest.mark.usefixtures("_equal_turns")
def test_jobs_that_share_a_device_give_the_bytes_that_they_give_alone(device: Device, make_request: MakeRequest):
    requests = [
        make_request(iterations=9, init=Init.RANDOM, seed=1),
        make_request(iterations=9, image_size=64, scales=2, optimizer=OptimizerKind.ADAM),
        make_request(iterations=9, init=Init.RANDOM, seed=2),
    ]
    expected = [alone(device, request).file for request in requests]
    device.order.clear()
    shared = [device.join(request) for request in requests]
    device.worker.serve()
    # They did take turns.
    assert set(device.order[:6]) == set(shared)
    assert [followed.file for followed in shared] == expected
    assert len(set(expected)) == 3


@pytest.mark.usefixtures("_no_preparing", "_equal_turns")
def test_a_job_can_join_and_leave_while_another_runs(device: Device, make_request: MakeRequest):
    long, short = make_request(iterations=12, seed=1, init=Init.RANDOM), make_request(iterations=2)
    expected = [alone(device, request).file for request in (long, short)]
    joined: list[RecordingSink] = []

    def join() -> None:
        if not joined:
            joined.append(device.join(short))

    first = device.join(long, on_progress=join)
    device.order.clear()
    device.worker.serve()
    assert [first.file, joined[0].file] == expected
    # Whoever joins has the next turn.
    assert device.order[1] is joined[0]
    assert device.order[-1] is first


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NonFiniteLossError("the loss is not finite"), JobFailedError),
        (MemoryError(), DoesNotFitError),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), DoesNotFitError),
        (ZeroDivisionError(), JobFailedError),
    ],
)
def test_what_goes_wrong_with_one_job_leaves_the_other_as_it_is(
    device: Device,
    make_request: MakeRequest,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: type[JobError],
):
    expected = alone(device, make_request(iterations=6)).file
    monkeypatch.setattr(run_module, "transfer", failing(error, size=64, after=3))
    wrong, right = device.join(make_request(iterations=6, image_size=64)), device.join(make_request(iterations=6))
    device.worker.serve()
    assert isinstance(wrong.outcome, outcome)
    assert wrong.iterations == 3
    assert right.outcome is StopReason.ITERATIONS
    assert right.file == expected


def test_memory_that_runs_out_once_more_while_a_job_makes_itself_smaller_ends_that_job_alone(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: Run) -> bool:
        raise MemoryError

    monkeypatch.setattr(run_module, "transfer", failing(MemoryError(), size=64, after=3))
    monkeypatch.setattr(Run, "shrink", fail)
    wrong, right = device.join(make_request(iterations=6, image_size=64)), device.join(make_request(iterations=6))
    device.worker.serve()
    assert isinstance(wrong.outcome, DoesNotFitError)
    assert right.outcome is StopReason.ITERATIONS


def running_out(*, edge: int, after: int) -> Callable[..., Iterator[Any]]:
    """Return a transfer that runs out of memory above a size, after its first steps."""

    def run(spec: TransferSpec, *arguments: Any) -> Iterator[Any]:
        is_too_large = spec.content.width > edge
        if is_too_large and not after:
            raise MemoryError
        for step in transfer(spec, *arguments):
            yield step
            if is_too_large and isinstance(step, Iterate) and step.iteration >= after:
                raise MemoryError

    return run


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
def test_a_job_that_fits_in_no_tiles_goes_on_smaller_where_the_request_allows_it(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerKind
):
    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=3))
    request = make_request(iterations=6, image_size=256, min_image_size=100, optimizer=optimizer)
    followed = device.join(request)
    device.worker.serve()
    assert followed.outcome is StopReason.ITERATIONS
    (reduced,) = [event for event in followed.events if isinstance(event, Reduced)]
    (header,) = [event for event in followed.events if isinstance(event, ResultHeader)]
    assert (header.width, header.height) == (reduced.width, reduced.height)
    assert 100 <= header.width <= 200
    assert Image.open(io.BytesIO(followed.file)).size == (header.width, header.height)
    # Half of what it needed in tiles beyond what any picture takes.
    spec = prepare(request, LIMITS, LAYERS)
    assert followed.job.run_state.cost.peak_bytes <= (estimate(spec.outline, Memory(0)).peak_bytes + least_bytes()) // 2
    progress = [event for event in followed.events if isinstance(event, Progress)]
    # In tiles it came no further.
    assert [event.iteration for event in progress] == [1, 2, 3, 3, 4, 5, 6]
    assert {event.total_iterations for event in progress} == {6}
    completed = followed.events[-1]
    assert isinstance(completed, Completed)
    assert completed.iterations == 6


def test_less_is_left_of_a_job_that_goes_on_smaller(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    def note() -> None:
        is_smaller = any(isinstance(event, Reduced) for event in followed.events)
        left.setdefault(is_smaller, []).append(followed.job.run_state.remaining_seconds)

    left: dict[bool, list[float]] = {}
    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=3))
    request = make_request(iterations=6, image_size=256, min_image_size=100)
    followed = device.join(request, on_preparing=note, on_progress=note)
    device.worker.serve()
    assert left[True][0] < left[False][-1]


def test_a_job_that_goes_on_smaller_does_not_hold_its_larger_pictures(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    def note() -> None:
        is_smaller = any(isinstance(event, Reduced) for event in followed.events)
        held[is_smaller] = pictures[0]() is not None

    held: dict[bool, bool] = {}
    pictures: list[weakref.ref[Image.Image]] = []
    plain = Device.prepared

    def prepared(*arguments: Any) -> TransferSpec:
        spec = plain(*arguments)
        pictures.append(weakref.ref(spec.content.rgb))
        return spec

    monkeypatch.setattr(Device, "prepared", prepared)
    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=3))
    followed = device.join(make_request(iterations=6, image_size=256, min_image_size=100), on_progress=note)
    device.worker.serve()
    assert held == {False: True, True: False}


def test_a_job_that_has_no_picture_yet_begins_smaller(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=0))
    followed = device.join(make_request(iterations=3, image_size=256, min_image_size=100))
    device.worker.serve()
    assert followed.outcome is StopReason.ITERATIONS
    assert [event.iteration for event in followed.events if isinstance(event, Progress)] == [1, 2, 3]


@pytest.mark.parametrize("least", [0, 250])
def test_no_job_becomes_smaller_than_its_request_allows(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, least: int
):
    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=3))
    followed = device.join(make_request(iterations=6, image_size=256, min_image_size=least))
    device.worker.serve()
    assert isinstance(followed.outcome, DoesNotFitError)
    assert not any(isinstance(event, Reduced) for event in followed.events)


def test_a_job_that_runs_out_of_memory_again_and_again_ends(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "transfer", running_out(edge=0, after=1))
    followed = device.join(make_request(iterations=6, image_size=400, min_image_size=64))
    device.worker.serve()
    assert isinstance(followed.outcome, DoesNotFitError)
    sizes = [event.width for event in followed.events if isinstance(event, Reduced)]
    assert len(sizes) > 1
    assert sizes == sorted(set(sizes), reverse=True)
    assert sizes[-1] >= 64


def test_a_checkpoint_of_the_size_before_is_carried_to_the_one_that_was_told(device: Device, make_request: MakeRequest):
    request = make_request(iterations=6)
    first = device.join(request, checkpoint=0.0)
    device.worker.serve()
    (snapshot,) = first.snapshots
    second = device.join(request, size=Size(40, 31), snapshot=snapshot)
    device.worker.serve()
    assert second.outcome is StopReason.ITERATIONS
    assert [event.iteration for event in second.events if isinstance(event, Progress)] == [2, 3, 4, 5, 6]
    assert Image.open(io.BytesIO(second.file)).size == (40, 31)


def test_where_a_job_goes_on_is_no_news(device: Device, make_request: MakeRequest):
    first = device.join(make_request(iterations=6), checkpoint=0.0)
    device.worker.serve()
    (snapshot,) = first.snapshots
    second = device.join(make_request(iterations=6), snapshot=snapshot, checkpoint=0.0)
    device.worker.serve()
    assert [snapshot.iteration for snapshot in second.snapshots] == [snapshot.iteration + 1]


def test_a_job_that_goes_on_does_not_hold_what_it_has_gone_on_from(device: Device, make_request: MakeRequest):
    first = device.join(make_request(iterations=6), checkpoint=0.0)
    device.worker.serve()
    held: list[bool] = []
    learnt = weakref.ref(first.snapshots[0].optimizer.next)
    second = device.join(
        make_request(iterations=6),
        snapshot=first.snapshots.pop(),
        on_progress=lambda: held.append(learnt() is not None),
    )
    device.worker.serve()
    assert second.outcome is StopReason.ITERATIONS
    assert not held[-1]


def test_another_checkpoint_is_taken_when_another_is_wanted(device: Device, make_request: MakeRequest):
    def want_another() -> None:
        # After the third step: as the event loop does when the first one is stored.
        if followed.iterations == 3:
            followed.job.control.next_checkpoint = 1.0

    followed = device.join(make_request(iterations=6), checkpoint=0.0, on_progress=want_another)
    device.worker.serve()
    assert [snapshot.iteration for snapshot in followed.snapshots] == [1, 3]


def test_an_idle_worker_does_not_hold_its_last_job(device: Device, make_request: MakeRequest):
    spec = prepare(make_request(iterations=2), LIMITS, LAYERS)
    job, left = job_of(spec), threading.Event()
    held = weakref.ref(job)
    device.worker.join(job, spec, None, RecordingSink(job, lambda *_: None, left.set))
    del job
    serving = threading.Thread(target=device.worker.serve)
    serving.start()
    try:
        assert left.wait(_LONG)
        hung = time.monotonic() + 60.0
        while held() and time.monotonic() < hung:
            gc.collect()
            time.sleep(0.01)
        assert held() is None
    finally:
        device.worker.close()
        serving.join()


def test_a_job_that_has_become_smaller_is_kept_as_far_as_it_is(
    device: Device, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    def leave() -> None:
        followed.job.control.must_leave = followed.iterations == 4

    monkeypatch.setattr(run_module, "transfer", running_out(edge=200, after=3))
    # In tiles, at the third step once more.
    followed = device.join(make_request(iterations=6, image_size=256), on_progress=leave)
    device.worker.serve()
    assert isinstance(followed.outcome, Requeued)
    assert followed.outcome.snapshot
    assert followed.outcome.snapshot.iteration == 3


@pytest.mark.usefixtures("_no_preparing")
@pytest.mark.parametrize("is_abandoned", [False, True])
def test_a_cancelled_job_does_not_wait_for_its_next_turn(device: Device, make_request: MakeRequest, is_abandoned: bool):
    def cancel() -> None:
        # It has had a turn, and by its weight the next would come after many of the other's.
        if slow.iterations:
            slow.job.control.stop_requested = StopReason.CANCELLED
            slow.job.control.is_abandoned = is_abandoned

    slow = device.join(make_request(iterations=50), seconds=1e12)
    other = device.join(make_request(iterations=6), seconds=1.0, on_progress=cancel)
    device.worker.serve()
    assert other.outcome is StopReason.ITERATIONS
    assert slow.iterations == 1
    if is_abandoned:
        assert isinstance(slow.outcome, JobCancelledError)
        assert not slow.file
    else:
        assert slow.outcome is StopReason.CANCELLED
        assert slow.file
        assert isinstance(slow.events[-1], Completed)


def test_a_job_cancelled_before_its_first_turn_has_no_picture(device: Device, make_request: MakeRequest):
    first = device.join(make_request(iterations=3))
    second = device.join(make_request(iterations=3))
    second.job.control.stop_requested = StopReason.CANCELLED
    device.worker.serve()
    assert first.outcome is StopReason.ITERATIONS
    assert isinstance(second.outcome, JobCancelledError)
    assert not second.iterations


def test_the_targets_are_told_of_part_by_part(device: Device, make_request: MakeRequest):
    followed = alone(device, make_request(iterations=4, image_size=192, scales=2))
    assert [(event.scale, event.scales, event.part, event.parts) for event in followed.preparing] == [
        (scale, 2, part, 2) for scale in (1, 2) for part in (1, 2)
    ]
    # A content and a style, before the first step of each scale.
    kinds = [type(event) for event in followed.events if isinstance(event, Preparing | Progress)]
    assert kinds == 2 * [*2 * [Preparing], *2 * [Progress]]


@pytest.mark.parametrize("is_abandoned", [False, True])
def test_a_job_cancelled_while_its_targets_are_computed_stops_after_the_part(
    device: Device, make_request: MakeRequest, is_abandoned: bool
):
    def cancel() -> None:
        followed.job.control.stop_requested = StopReason.CANCELLED
        followed.job.control.is_abandoned = is_abandoned

    followed = device.join(make_request(iterations=3), on_preparing=cancel)
    device.worker.serve()
    assert isinstance(followed.outcome, JobCancelledError)
    assert len(followed.preparing) == 1
    assert not followed.iterations


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.SHUTDOWN])
def test_a_job_that_stops_before_its_second_scale_is_prepared_has_the_picture_of_the_first(
    device: Device, make_request: MakeRequest, reason: StopReason
):
    def stop() -> None:
        if len(followed.preparing) == 3:
            followed.job.control.stop_requested = reason

    followed = device.join(make_request(iterations=4, image_size=192, scales=2), on_preparing=stop)
    device.worker.serve()
    assert followed.outcome is reason
    assert followed.iterations == 2
    assert followed.file


def test_a_shutdown_leaves_every_job_its_best_picture(device: Device, make_request: MakeRequest):
    def shut_down() -> None:
        for followed in jobs:
            followed.job.control.stop_requested = StopReason.SHUTDOWN

    jobs = [device.join(make_request(iterations=50), on_progress=shut_down) for _ in range(3)]
    device.worker.serve()
    assert [followed.outcome for followed in jobs] == [StopReason.SHUTDOWN] * 3
    assert all(followed.iterations == 1 and followed.file for followed in jobs)


@pytest.mark.usefixtures("_equal_turns")
def test_a_job_that_shares_is_expected_to_end_later_than_alone(device: Device, make_request: MakeRequest):
    left: list[tuple[float, float]] = []

    def note(followed: RecordingSink) -> None:
        progress = followed.events[-1]
        assert isinstance(progress, Progress)
        left.append((progress.eta_seconds, followed.job.run_state.remaining_seconds))

    first = device.join(make_request(iterations=4), on_progress=lambda: note(first))
    second = device.join(make_request(iterations=8), on_progress=lambda: note(second))
    device.worker.serve()
    assert all(eta > remaining for eta, remaining in left[:6])
    assert left[-1] == (0.0, 0.0)
    # Alone again, the second needs no more than what is left of it.
    assert all(eta == remaining for eta, remaining in left[8:])


def test_the_time_of_a_job_adds_up_where_it_is_shared(device: Device, make_request: MakeRequest):
    jobs = [device.join(make_request(iterations=4)) for _ in range(2)]
    device.worker.serve()
    for followed in jobs:
        completed, progress = followed.events[-1], [event for event in followed.events if isinstance(event, Progress)]
        assert isinstance(completed, Completed)
        assert completed.timings.optimize >= progress[-1].elapsed_seconds > 0


@pytest.mark.usefixtures("_no_preparing")
class TestDeadline:
    """The deadline of a job whose next turn may be far off."""

    @pytest.fixture
    def run(self, make_request: MakeRequest, model: Vgg19, limits: Limits) -> Iterator[Run]:
        spec = prepare(make_request(iterations=50), limits, LAYERS)
        job = job_of(spec, deadline=time.monotonic() + _LONG)
        run = Run(job, spec, RecordingSink(job, lambda *_: None, lambda: None), model, Throughput())
        run.start()
        yield run
        run.close()

    def test_it_goes_on_while_its_next_step_ends_in_time(self, run: Run):
        run.step()
        assert run.reason_to_stop(0.0) is None

    def test_it_ends_before_a_wait_that_outlasts_it(self, run: Run):
        run.step()
        assert run.reason_to_stop(_LONG) is StopReason.DEADLINE

    def test_it_takes_a_first_step_in_any_case(self, run: Run):
        assert run.reason_to_stop(2 * _LONG) is None


@pytest.mark.usefixtures("_no_preparing")
def test_a_deadline_ends_a_job_that_would_wait_too_long_for_its_next_turn(device: Device, make_request: MakeRequest):
    slow = device.join(make_request(iterations=50), seconds=1e12, deadline=time.monotonic() + _LONG)
    other = device.join(make_request(iterations=50), seconds=1.0)
    # Thirty steps of the other, as it seems, take longer than the deadline is away.
    plain = Run.step

    def step(run: Run) -> None:
        plain(run)
        if run.job is other.job:
            run.job.run_state = dataclasses.replace(run.job.run_state, next_seconds=_LONG, remaining_seconds=30 * _LONG)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "step", step)
        device.worker.serve()
    assert slow.outcome is StopReason.DEADLINE
    assert slow.iterations == 1
    assert other.outcome is StopReason.ITERATIONS
