import dataclasses
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nst_service.engine.errors import InvalidRequestError
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.options import Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, prepare
from nst_service.jobs.decoders import Decoders
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.errors import DoesNotFitError, QuotaExceededError
from nst_service.jobs.events import SerializedEvent
from nst_service.jobs.forecast import Span
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import NullObserver
from nst_service.jobs.planner import Planner, accepted
from nst_service.jobs.quotas import ANYONE, Owner, Quota
from nst_service.lifecycle import JobState
from nst_service.store.records import DisconnectPolicy

from tests.jobs.builders import FakeWorker, make_stored_job
from tests.limits import DECODER_LIMITS, LIMITS

MakeRequest = Callable[..., TransferRequest]
MakePlanner = Callable[..., Planner]


@pytest.fixture
def make_planner(limits: Limits) -> Iterator[MakePlanner]:
    planners: list[Planner] = []

    def make(memory: int = 2**33, seconds_per_operation: float = 1e-9) -> Planner:
        worker = FakeWorker(memory=memory, seconds_per_operation=seconds_per_operation)
        worker.layers = LAYERS
        planners.append(Planner(DevicePool([worker], 1, NullObserver()), limits, Decoders(DECODER_LIMITS)))
        return planners[-1]

    yield make
    for planner in planners:
        planner.close()


async def test_a_planned_job_has_everything_that_follows_from_its_request(
    make_planner: MakePlanner, make_request: MakeRequest
):
    planner = make_planner()
    job = planner.plan(
        await planner.prepare(make_request(iterations=5), ANYONE),
        owner="ann",
        request_id="one",
        disconnect_policy=DisconnectPolicy.KEEP_RUNNING,
        deadline=7.0,
    )
    assert (job.owner, job.plan.request_id, job.plan.deadline, job.plan.earlier_runs) == ("ann", "one", 7.0, 0)
    assert job.plan.disconnect_policy is DisconnectPolicy.KEEP_RUNNING
    assert job.run_state.remaining_seconds == job.plan.expected_seconds == pytest.approx(job.run_state.cost.work * 1e-9)
    assert job.state is JobState.QUEUED


async def test_the_first_event_tells_what_was_planned(make_planner: MakePlanner, make_request: MakeRequest):
    planner = make_planner(memory=120 * 2**20)
    job = planner.plan(await planner.prepare(make_request(iterations=5, image_size=400, min_image_size=100), ANYONE))
    event = accepted(job, Span(3.0, 4.0), job_id=job.id)
    assert event.job_id == job.id
    assert Size(event.width, event.height) == job.run_state.outline.size
    assert event.estimate.queue_seconds == 3.0
    assert event.estimate.seconds == job.plan.expected_seconds
    assert event.estimate.reduced_from == 400
    assert event.estimate.peak_memory_bytes == job.run_state.cost.peak_bytes <= 120 * 2**20


async def test_an_impossible_request_is_refused(make_planner: MakePlanner, make_request: MakeRequest):
    with pytest.raises(InvalidRequestError):
        await make_planner().prepare(make_request(iterations=0), ANYONE)
    with pytest.raises(QuotaExceededError):
        await make_planner().prepare(make_request(iterations=5), Owner(name="ann", quota=Quota(iterations=4)))
    with pytest.raises(DoesNotFitError):
        await make_planner(memory=2**20).prepare(make_request(iterations=5), ANYONE)


async def test_a_job_that_goes_on_has_the_size_that_was_published(make_planner: MakePlanner, make_request: MakeRequest):
    request, size = make_request(iterations=5, image_size=256), Size(128, 99)
    assert (await make_planner().prepare_again(request, "", size)).size == size


async def test_a_quota_does_not_stop_a_job_that_was_accepted(make_planner: MakePlanner, make_request: MakeRequest):
    outline = await make_planner().prepare_again(make_request(iterations=5), "", Size(48, 37))
    assert outline.size == Size(48, 37)


async def test_a_resumed_job_is_the_stored_one(make_planner: MakePlanner, make_request: MakeRequest):
    planner = make_planner()
    stored = make_stored_job("job", owner="ann", epoch=2, created_at=time.time() - 100.0)
    events = [LoggedEvent(5, SerializedEvent(b"started"))]
    job = planner.resume(stored, await planner.prepare_again(make_request(iterations=5), "", Size(48, 37)), events)
    assert (job.id, job.owner, job.plan.request_id, job.plan.earlier_runs) == ("job", "ann", "job", 2)
    assert job.plan.disconnect_policy is DisconnectPolicy.KEEP_RUNNING
    assert job.plan.deadline is None
    assert time.monotonic() - job.plan.accepted_at == pytest.approx(100.0, abs=30.0)
    assert [logged.event for logged in job.log._kept] == [SerializedEvent(b"accepted"), SerializedEvent(b"started")]
    assert job.log.next_sequence == 6


@pytest.mark.parametrize(("age", "left"), [(100.0, 900.0), (-5000.0, 1000.0), (2000.0, -1000.0)])
async def test_a_resumed_job_never_has_more_time_than_in_the_beginning(
    make_planner: MakePlanner, make_request: MakeRequest, age: float, left: float
):
    # A negative age: somebody has set the clock back.
    planner, created_at = make_planner(), time.time() - age
    stored = make_stored_job(created_at=created_at, deadline=created_at + 1000.0)
    job = planner.resume(stored, await planner.prepare_again(make_request(iterations=5), "", Size(48, 37)), [])
    assert job.plan.deadline is not None
    assert job.plan.deadline - time.monotonic() == pytest.approx(left, abs=30.0)


async def test_a_call_in_a_thread_returns_its_result(make_planner: MakePlanner):
    assert await make_planner().in_thread(divmod, 7, 2) == (3, 1)


async def test_an_outline_needs_headers_only(make_planner: MakePlanner, make_request: MakeRequest):
    request = make_request(iterations=5)
    truncated = dataclasses.replace(request, content=request.content[: len(request.content) // 2])
    planner = make_planner()
    assert (await planner.outline(truncated, ANYONE)).size == Size(48, 37)
    with pytest.raises(InvalidRequestError) as caught:
        await planner.prepare(truncated, ANYONE)
    assert str(caught.value) == "content: is damaged or truncated"


async def test_a_quota_is_checked_before_anything_is_decoded(
    make_planner: MakePlanner, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Decoders, "check", lambda *_: pytest.fail("decoded"))
    with pytest.raises(QuotaExceededError):
        await make_planner().prepare(make_request(iterations=5), Owner(name="ann", quota=Quota(pixels=100)))


async def test_a_planned_job_holds_no_pictures(make_planner: MakePlanner, make_request: MakeRequest):
    planner = make_planner()
    job = planner.plan(await planner.prepare(make_request(iterations=5), ANYONE))
    assert len(pickle.dumps(job.run_state)) < 4096


@pytest.mark.parametrize(
    ("size", "options"), [(Size(48, 37), {}), (Size(200, 154), {"image_size": 400, "min_image_size": 100})]
)
async def test_the_pictures_of_a_job_are_those_that_its_request_leads_to(
    make_planner: MakePlanner, make_request: MakeRequest, size: Size, options: dict[str, Any]
):
    request, planner = make_request(iterations=5, **options), make_planner()
    outline = await planner.prepare_again(request, "ann", size)
    spec, expected = await planner.render(request, outline, "ann"), prepare(request, LIMITS, LAYERS)
    expected = expected if size == expected.content.size else expected.reduced(size)
    assert (spec.options, spec.reduced_from) == (expected.options, expected.reduced_from)
    pictures = [[each.content, *(style.picture for style in each.styles)] for each in (spec, expected)]
    for one, other in zip(*pictures, strict=True):
        assert one.rgb.tobytes() == other.rgb.tobytes()
