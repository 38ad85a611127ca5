"""The RPCs of jobs, called as a client in any language calls them."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_service.config import ServerConfig
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.server import Server

pytestmark = pytest.mark.usefixtures("quick_start")

_HANG_SECONDS = 60
"""Seconds after which a test counts as hung. No test measures time."""
_ENDLESS = 5000
"""Iterations that no test waits for."""

Stub = pb_grpc.StyleTransferServiceStub


@pytest.fixture
def serving(tmp_path: Path):
    """Return a context manager that runs a server, with the same store every time."""

    @contextlib.asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[Stub]:
        server = Server(ServerConfig(address="127.0.0.1:0", data_dir=str(tmp_path / "jobs"), grace=0.0, **settings))
        stop, listening = asyncio.Event(), asyncio.Future()
        stopped = asyncio.create_task(server.run(stop, listening.set_result))
        try:
            async with (
                asyncio.timeout(_HANG_SECONDS),
                grpc.aio.insecure_channel(f"127.0.0.1:{await listening}") as channel,
            ):
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                    pass
                watch.cancel()
                yield Stub(channel)
        finally:
            stop.set()
            await asyncio.wait_for(stopped, _HANG_SECONDS)

    return serving


@pytest.fixture
def named(request_: pb.StylizeRequest) -> Callable[..., pb.StylizeRequest]:
    """Return a function that returns the request with an id and a number of iterations."""

    def named(request_id: str, iterations: int = 5, **fields: Any) -> pb.StylizeRequest:
        request = pb.StylizeRequest(request_id=request_id, **fields)
        request.MergeFrom(request_)
        request.options.iterations = iterations
        return request

    return named


async def events_of(call: Any) -> list[pb.JobEvent]:
    events = []
    while (response := await call.read()) is not grpc.aio.EOF:
        events.append(response.event)
    return events


async def read_until(call: Any, kind: str) -> pb.JobEvent:
    while (event := (await call.read()).event).WhichOneof("event") != kind:
        pass
    return event


def picture_in(events: list[pb.JobEvent]) -> bytes:
    return b"".join(event.result_chunk.data for event in events)


async def failure_of(call: Any, detail: Message) -> tuple[grpc.StatusCode, Message]:
    """Return the code that a call fails with, and the detail of its kind."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (events_of(call) if hasattr(call, "read") else call)
    status = rpc_status.from_call(caught.value)
    assert any(packed.Unpack(detail) for packed in status.details)
    return caught.value.code(), detail


async def test_a_job_is_watched_and_described_by_its_id(serving, named):
    async with serving() as stub:
        events = await events_of(stub.Stylize(named("one")))
        job_id = events[0].accepted.job_id
        watched = await events_of(stub.WatchJob(pb.WatchJobRequest(job_id=job_id)))
        job = (await stub.GetJob(pb.GetJobRequest(job_id=job_id))).job
    assert picture_in(watched) == picture_in(events) != b""
    assert watched[0] == events[0]
    assert watched[-1] == events[-1]
    assert (job.job_id, job.request_id, job.state) == (job_id, "one", pb.JOB_STATE_SUCCEEDED)
    assert job.accepted == events[0].accepted
    assert job.completed == events[-1].completed
    assert job.result.sha256 == hashlib.sha256(picture_in(events)).hexdigest()
    assert job.disconnect_policy == pb.DISCONNECT_POLICY_CANCEL
    assert job.create_time.ToSeconds() <= job.end_time.ToSeconds()
    assert not job.HasField("failure")


async def test_a_watcher_goes_on_after_any_event_without_a_gap(serving, named):
    async with serving() as stub:
        events = await events_of(stub.Stylize(named("one")))
        kept = [
            event for event in events if event.WhichOneof("event") not in ("queued", "progress", "preview", "preparing")
        ]
        for number, event in enumerate(kept):
            request = pb.WatchJobRequest(job_id=events[0].accepted.job_id, after_sequence=event.sequence)
            assert await events_of(stub.WatchJob(request)) == kept[number + 1 :]


async def test_many_watchers_see_the_same_job(serving, named):
    async with serving() as stub:
        call = stub.Stylize(named("one", 40))
        job_id = (await read_until(call, "accepted")).accepted.job_id
        watchers = [events_of(stub.WatchJob(pb.WatchJobRequest(job_id=job_id))) for _ in range(5)]
        pictures = {picture_in(events) for events in await asyncio.gather(*watchers)}
        assert len(pictures) == 1
        assert pictures == {picture_in(await events_of(call))}


async def test_the_same_request_follows_its_job_and_another_one_is_refused(serving, named):
    async with serving() as stub:
        first = await events_of(stub.Stylize(named("one")))
        again = await events_of(stub.Stylize(named("one")))
        assert again[0] == first[0]
        assert picture_in(again) == picture_in(first)
        resource = error_details_pb2.ResourceInfo()
        code, _ = await failure_of(stub.Stylize(named("one", 6)), resource)
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert resource.resource_name == first[0].accepted.job_id


async def test_a_finished_job_is_read_again_after_a_restart(serving, named):
    async with serving() as stub:
        before = await events_of(stub.Stylize(named("one")))
    async with serving() as stub:
        after = await events_of(stub.WatchJob(pb.WatchJobRequest(job_id=before[0].accepted.job_id)))
        repeated = await events_of(stub.Stylize(named("one")))
    assert picture_in(after) == picture_in(repeated) == picture_in(before)


async def test_a_running_job_goes_on_after_a_restart(serving, named):
    async with serving() as stub:
        call = stub.Stylize(named("one", 300, disconnect_policy=pb.DISCONNECT_POLICY_KEEP_RUNNING))
        accepted = await read_until(call, "accepted")
        while (last := await read_until(call, "progress")).progress.iteration == 1:
            pass
    async with serving() as stub:
        request = pb.WatchJobRequest(job_id=accepted.accepted.job_id, after_sequence=last.sequence)
        events = await events_of(stub.WatchJob(request))
    assert events[-1].completed.iterations == 300
    assert all(event.sequence > last.sequence for event in events)
    started = [event for event in events if event.HasField("started")]
    assert started
    progress = [event.progress.iteration for event in events if event.HasField("progress")]
    assert progress[0] > 1


async def test_jobs_are_listed_newest_first_page_by_page_and_by_state(serving, named):
    async with serving() as stub:
        ids = [(await events_of(stub.Stylize(named(f"{n}"))))[0].accepted.job_id for n in range(3)]
        endless = stub.Stylize(named("endless", _ENDLESS))
        running = (await read_until(endless, "accepted")).accepted.job_id
        await read_until(endless, "progress")
        listed, token = [], ""
        while True:
            page = await stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=token))
            assert len(page.jobs) <= 2
            listed += page.jobs
            token = page.next_page_token
            if not token:
                break
        assert [job.job_id for job in listed] == [running, *reversed(ids)]
        assert listed[0].progress.iteration
        only = await stub.ListJobs(pb.ListJobsRequest(states=[pb.JOB_STATE_RUNNING]))
        assert [job.job_id for job in only.jobs] == [running]
        await stub.CancelJob(pb.CancelJobRequest(job_id=running))
        assert (await events_of(endless))[-1].completed.stop_reason == pb.STOP_REASON_CANCELLED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListJobsRequest(page_size=-1), "page_size"),
        (pb.ListJobsRequest(page_size=1001), "page_size"),
        (pb.ListJobsRequest(page_token="next"), "page_token"),
        (pb.ListJobsRequest(page_token="9" * 30), "page_token"),
        (pb.ListJobsRequest(states=[0]), "states[0]"),
        (pb.ListJobsRequest(states=[pb.JOB_STATE_RUNNING, 99]), "states[1]"),
    ],
)
async def test_a_list_that_cannot_be_given_is_refused_by_its_field(serving, request_: pb.ListJobsRequest, field: str):
    async with serving() as stub:
        code, detail = await failure_of(stub.ListJobs(request_), error_details_pb2.BadRequest())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in detail.field_violations] == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "é"}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "one", "disconnect_policy": 99}, "disconnect_policy"),
        ({"request_id": "", "disconnect_policy": pb.DISCONNECT_POLICY_KEEP_RUNNING}, "disconnect_policy"),
    ],
)
async def test_what_cannot_name_a_job_is_refused_by_its_field(serving, named, fields: dict[str, Any], field: str):
    async with serving() as stub:
        code, detail = await failure_of(stub.Stylize(named(**fields)), error_details_pb2.BadRequest())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in detail.field_violations] == [field]


@pytest.mark.parametrize("name", ["job_id", "request_id"])
@pytest.mark.parametrize("value", ["", "none", "x" * 10_000])
async def test_an_unknown_job_is_not_found(serving, name: str, value: str):
    async with serving() as stub:
        for call in (
            stub.WatchJob(pb.WatchJobRequest(**{name: value})),
            stub.GetJob(pb.GetJobRequest(**{name: value})),
            stub.CancelJob(pb.CancelJobRequest(**{name: value})),
        ):
            code, detail = await failure_of(call, error_details_pb2.ResourceInfo())
            assert code is grpc.StatusCode.NOT_FOUND
            assert detail.resource_type == "nst.v1.Job"


async def test_a_job_is_named_by_the_id_of_its_request_too(serving, named):
    async with serving() as stub:
        ended = await events_of(stub.Stylize(named("ended")))
        call = stub.Stylize(named("one", _ENDLESS))
        job_id = (await read_until(call, "accepted")).accepted.job_id
        await read_until(call, "progress")
        assert (await stub.GetJob(pb.GetJobRequest(request_id="one"))).job.job_id == job_id
        watch = stub.WatchJob(pb.WatchJobRequest(request_id="one"))
        assert (await read_until(watch, "accepted")).accepted.job_id == job_id
        cancelled = await stub.CancelJob(pb.CancelJobRequest(request_id="one"))
        assert cancelled.state == pb.JOB_STATE_RUNNING
        for followed in (call, watch):
            assert (await events_of(followed))[-1].completed.stop_reason == pb.STOP_REASON_CANCELLED
        assert picture_in(await events_of(stub.WatchJob(pb.WatchJobRequest(request_id="ended")))) == picture_in(ended)


async def test_whoever_leaves_before_accepted_cancels_what_comes_of_the_request(
    serving, named, monkeypatch: pytest.MonkeyPatch
):
    accept, reached, go_on = AsyncJobStore.submit, asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await accept(*arguments)

    monkeypatch.setattr(AsyncJobStore, "submit", slowly)
    async with serving(reattach_seconds=3600.0) as stub:
        call = stub.Stylize(named("one", _ENDLESS))
        await reached.wait()
        call.cancel()
        await stub.CancelJob(pb.CancelJobRequest(request_id="one"))
        go_on.set()
        states: list[pb.JobState] = []
        while states != [pb.JOB_STATE_CANCELLED]:
            await asyncio.sleep(0.01)
            states = [job.state for job in (await stub.ListJobs(pb.ListJobsRequest())).jobs]
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
        assert info.running_jobs + info.queued_jobs == 0


async def test_a_job_is_not_named_twice(serving):
    ids = {"job_id": "one", "request_id": "two"}
    async with serving() as stub:
        for call in (
            stub.WatchJob(pb.WatchJobRequest(**ids)),
            stub.GetJob(pb.GetJobRequest(**ids)),
            stub.CancelJob(pb.CancelJobRequest(**ids)),
        ):
            code, detail = await failure_of(call, error_details_pb2.BadRequest())
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in detail.field_violations] == ["request_id"]


async def test_a_picture_that_was_sent_or_received_is_named_by_its_sha256(serving, named):
    request = named("one")
    async with serving() as stub:
        first = await events_of(stub.Stylize(request))
        by_name = named("two")
        by_name.content.sha256 = hashlib.sha256(request.content.data).hexdigest()
        by_name.styles[0].picture.sha256 = hashlib.sha256(request.styles[0].picture.data).hexdigest()
        assert picture_in(await events_of(stub.Stylize(by_name))) == picture_in(first)
        further = named("three")
        further.content.sha256 = hashlib.sha256(picture_in(first)).hexdigest()
        assert picture_in(await events_of(stub.Stylize(further)))
        # The same request in other words.
        by_name.request_id = "one"
        assert (await events_of(stub.Stylize(by_name)))[0] == first[0]


class _CountingSha256:
    """Stands for `hashlib.sha256` and counts the hashes of some data."""

    def __init__(self, *counted: bytes):
        self._compute = hashlib.sha256
        self._counted = set(counted)
        self.counts: Counter[bytes] = Counter()

    def __call__(self, data: Any = b"", **more: Any) -> Any:
        return _CountedHash(self, self._compute(**more), data)

    def note(self, data: bytes) -> None:
        if data in self._counted:
            self.counts[data] += 1


class _CountedHash:
    def __init__(self, counting: _CountingSha256, state: Any, data: Any):
        self._counting, self._state = counting, state
        self.update(data)

    def update(self, data: Any) -> None:
        self._counting.note(bytes(data))
        self._state.update(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


@pytest.mark.parametrize("request_id", ["one", ""])
async def test_each_picture_of_a_request_is_hashed_once_on_its_way_in(
    serving, named, monkeypatch: pytest.MonkeyPatch, request_id: str
):
    async with serving() as stub:
        request = named(request_id)
        pictures = [request.content.data, request.styles[0].picture.data]
        monkeypatch.setattr(hashlib, "sha256", counting := _CountingSha256(*pictures))
        await events_of(stub.Stylize(request))
        # And once when its job began: it was read from the store, and that proves the file undamaged.
        assert [counting.counts[picture] for picture in pictures] == [2, 2]
        request.request_id = "two"
        request.options.seed = 7
        await events_of(stub.Stylize(request))
        # Once more as sent, once as stored by the job before, and once when this job began.
        assert [counting.counts[picture] for picture in pictures] == [5, 5]


@pytest.mark.parametrize("sha256", ["0" * 64, "", "x", "../../etc/passwd"])
async def test_a_picture_that_is_not_there_is_not_found(serving, named, sha256: str):
    request = named("one")
    request.styles[0].picture.sha256 = sha256
    async with serving() as stub:
        for call in (stub.Stylize(request), stub.Estimate(pb.EstimateRequest(stylize=request))):
            code, detail = await failure_of(call, error_details_pb2.ResourceInfo())
            assert code is grpc.StatusCode.NOT_FOUND
            assert (detail.resource_type, detail.resource_name) == ("nst.v1.Picture", sha256)


async def test_a_client_that_lost_its_call_finds_its_job_by_the_request(serving, named):
    async with serving() as stub:
        lost = stub.Stylize(named("one", 60))
        accepted = await read_until(lost, "accepted")
        await read_until(lost, "progress")
        lost.cancel()
        events = await events_of(stub.Stylize(named("one", 60)))
    assert events[0] == accepted
    assert events[-1].completed.iterations == 60


async def test_a_job_whose_followers_do_not_come_back_is_cancelled_and_keeps_its_picture(serving, named):
    async with serving(reattach_seconds=0.1) as stub:
        lost = stub.Stylize(named("one", _ENDLESS))
        job_id = (await read_until(lost, "accepted")).accepted.job_id
        await read_until(lost, "progress")
        lost.cancel()
        job = pb.Job()
        while job.state != pb.JOB_STATE_CANCELLED:
            await asyncio.sleep(0.05)
            job = (await stub.GetJob(pb.GetJobRequest(job_id=job_id))).job
        events = await events_of(stub.WatchJob(pb.WatchJobRequest(job_id=job_id)))
    assert events[-1].completed.stop_reason == pb.STOP_REASON_CANCELLED
    assert picture_in(events)


async def test_the_limits_say_how_long_jobs_are_kept(serving):
    async with serving(reattach_seconds=7.0, keep_seconds=9.0) as stub:
        limits = (await stub.GetServerInfo(pb.GetServerInfoRequest())).limits
    assert (limits.reattach_seconds, limits.retention_seconds) == (7.0, 9.0)


async def test_a_store_that_is_full_refuses_jobs_and_says_so(serving, named):
    async with serving(max_store_bytes=2**20) as stub:
        request = named("one")
        # A large one that is no picture is refused for that first.
        request.content.data += bytes(2**21)
        code, detail = await failure_of(stub.Stylize(request), error_details_pb2.ErrorInfo())
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail.reason == "STORE_FULL"
