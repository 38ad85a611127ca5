import asyncio
import contextlib
import math
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_client import (
    Accepted,
    AsyncStyleTransferClient,
    Completed,
    CorruptResultError,
    DeadlineExceededError,
    Health,
    InvalidRequestError,
    JobCancelledError,
    JobNotFoundError,
    JobState,
    QueueFullError,
    ResultNotReadyError,
    StopReason,
    UnavailableError,
)

SOON = 10.0
"""Seconds after which a test that waits has failed."""


async def ended(servicer):
    return await asyncio.to_thread(servicer.call_ended.wait, SOON)


async def test_one_call_gives_the_picture(async_client, servicer, script, pictures):
    data = bytes(range(256)) * 4096
    servicer.attempts = [script.job(data)]
    seen = []
    result = await async_client.stylize(pictures[0], pictures[1], on_event=seen.append)
    assert result.data == data
    assert isinstance(seen[0], Accepted)
    assert seen[-1] is result.completed
    assert servicer.requests[0].content.data == b"content.jpg"


async def test_a_stream_gives_events_and_then_the_result(async_client, servicer, script):
    servicer.attempts = [script.job()]
    async with async_client.stream(b"content", b"style") as events:
        first = await anext(events)
        assert first.job_id == events.job_id == "job-1"
        with pytest.raises(ResultNotReadyError):
            _ = events.result
        rest = [event async for event in events]
        assert isinstance(rest[-1], Completed)
    assert events.result.data == b"the picture"


async def test_leaving_a_stream_early_ends_the_job(async_client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    async with async_client.stream(b"content", b"style") as events:
        await anext(events)
    assert servicer.cancelled == ["job-1"]
    assert await ended(servicer)
    assert [event async for event in events] == []
    await events.close()
    assert servicer.cancelled == ["job-1"]


async def test_leaving_a_job_that_shall_go_on_only_ends_the_call(async_client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    async with async_client.stream(b"content", b"style", keep_running=True) as events:
        await anext(events)
    assert await ended(servicer)
    assert servicer.requests[0].disconnect_policy == pb.DISCONNECT_POLICY_KEEP_RUNNING
    assert servicer.cancelled == []


async def test_leaving_a_watched_job_only_ends_the_call(async_client, servicer, script):
    servicer.watch_attempts = [[script.accepted(), servicer.wait_for_end]]
    async with async_client.watch("job-1") as events:
        await anext(events)
    assert await ended(servicer)
    assert servicer.cancelled == []


async def test_leaving_a_job_whose_server_is_gone_is_no_error(async_client, servicer, script, host):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    async with async_client.stream(b"content", b"style") as events:
        await anext(events)
        await asyncio.to_thread(host.stop().wait)
    assert [event async for event in events] == []


async def test_leaving_a_job_after_its_channel_is_no_error(target, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    channel = grpc.aio.insecure_channel(target)
    async with AsyncStyleTransferClient(channel=channel).stream(b"content", b"style") as events:
        await anext(events)
        await channel.close()
    assert await ended(servicer)


async def test_closing_the_client_ends_its_jobs(target, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    client = AsyncStyleTransferClient(target)
    events = client.stream(b"content", b"style")
    await anext(events)
    await client.close()
    assert servicer.cancelled == ["job-1"]
    assert await ended(servicer)
    with pytest.raises(JobCancelledError, match="no longer follows the job job-1"):
        await anext(events)


async def test_cancelling_the_task_ends_the_job(async_client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    accepted = asyncio.Event()
    task = asyncio.create_task(async_client.stylize(b"content", b"style", on_event=lambda _: accepted.set()))
    await accepted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert servicer.cancelled == ["job-1"]
    assert await ended(servicer)


async def test_cancelling_keeps_the_best_picture_so_far(async_client, servicer, script):
    accepted = script.accepted()
    picture = script.picture(stop_reason=pb.STOP_REASON_CANCELLED)
    servicer.attempts = [[accepted, servicer.wait_for_cancel, *picture]]
    async with async_client.stream(b"content", b"style") as events:
        await anext(events)
        assert await events.cancel() is JobState.RUNNING
        async for _ in events:
            pass
    assert events.result.completed.stop_reason is StopReason.CANCELLED
    assert servicer.cancelled == ["job-1"]


async def test_cancelling_before_there_is_a_job_is_an_error_and_no_cancelled_task(async_client, servicer):
    servicer.attempts = [[servicer.wait_for_end]]
    events = async_client.stream(b"content", b"style")
    waiting = asyncio.create_task(anext(events))
    while not servicer.requests:
        await asyncio.sleep(0.01)
    assert await events.cancel() is None
    with pytest.raises(JobCancelledError, match="before it was accepted"):
        await waiting
    assert await ended(servicer)
    assert servicer.cancelled == servicer.request_ids


async def test_leaving_a_stream_before_there_is_a_job_ends_what_may_come_of_it(async_client, servicer):
    servicer.attempts = [[servicer.wait_for_end]]
    waiting = asyncio.create_task(anext(async_client.stream(b"content", b"style", request_id="order-1")))
    while not servicer.requests:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert servicer.cancelled == ["order-1"]


async def test_a_job_is_named_by_the_id_of_its_request_too(async_client, servicer, script, description):
    servicer.request_ids, servicer.watch_attempts = ["order-1"], [script.job()]
    servicer.described = [description(request_id="order-1")]
    assert await async_client.cancel(request_id="order-1") is JobState.RUNNING
    assert (await async_client.get(request_id="order-1")).job_id == "job-1"
    async with async_client.watch(request_id="order-1") as events:
        assert (await anext(events)).job_id == "job-1"


async def test_a_job_that_was_given_up_is_not_sent(async_client, servicer):
    events = async_client.stream(b"content", b"style")
    await events.cancel()
    with pytest.raises(JobCancelledError):
        await anext(events)
    assert servicer.requests == []


async def test_cancelling_while_waiting_for_a_retry_gives_up_at_once(async_client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=50.0)]]
    events = async_client.stream(b"content", b"style")
    waiting = asyncio.create_task(anext(events))
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(events.cancel()))
    with pytest.raises(JobCancelledError):
        await asyncio.wait_for(waiting, SOON)
    assert len(servicer.requests) == 1


async def test_closing_while_waiting_for_a_retry_gives_up_at_once(async_client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=50.0)]]
    events = async_client.stream(b"content", b"style")
    waiting = asyncio.create_task(anext(events))
    asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(events.close()))
    with pytest.raises(JobCancelledError, match="before it was accepted"):
        await asyncio.wait_for(waiting, SOON)
    assert [event async for event in events] == []


@pytest.mark.usefixtures("no_jitter")
async def test_a_job_that_is_not_taken_yet_is_sent_again(async_client, servicer, script, failure):
    refusal = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after=0.02)
    servicer.attempts = [[refusal], [refusal], script.job()]
    result = await async_client.stylize(b"content", b"style")
    assert result.data == b"the picture"
    assert len(servicer.requests) == 3


@pytest.mark.usefixtures("no_jitter")
async def test_retries_end(async_client, servicer, failure):
    refusal = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="QUEUE_FULL", retry_after=0.02)
    servicer.attempts = [[refusal]] * 3
    with pytest.raises(QueueFullError, match="full"):
        await async_client.stylize(b"content", b"style")
    assert len(servicer.requests) == 3


async def test_a_timeout_that_passes_is_an_error(async_client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    with pytest.raises(DeadlineExceededError):
        await async_client.stylize(b"content", b"style", timeout=0.1)


async def test_a_missing_file_is_an_error_of_the_request(async_client, servicer, tmp_path):
    with pytest.raises(InvalidRequestError, match="content: cannot read"):
        await async_client.stylize(tmp_path / "none.jpg", b"style")
    assert servicer.requests == []


async def test_a_broken_stream_ends_the_call(async_client, servicer, script):
    servicer.attempts = [[script.accepted(), script.header(b"0123"), script.chunk(2, b"23"), servicer.wait_for_end]]
    with pytest.raises(CorruptResultError):
        await async_client.stylize(b"content", b"style")
    assert await ended(servicer)


async def test_an_estimate_sends_no_picture_that_the_server_has(async_client, servicer, script, failure):
    large = bytes(range(256)) * 65
    servicer.attempts = [script.job()]
    await async_client.stylize(large, b"style")
    servicer.estimate_failures = [failure(grpc.StatusCode.NOT_FOUND, resource=("nst.v1.Picture", "x"))]
    await async_client.estimate(large, b"style")
    assert [request.content.WhichOneof("source") for request in servicer.requests] == ["data", "sha256", "data"]


async def test_a_job_is_cancelled_by_its_id(async_client):
    assert await async_client.cancel("job-1") is JobState.RUNNING
    with pytest.raises(JobNotFoundError, match="no such job"):
        await async_client.cancel("job-2")


async def test_a_job_is_described_by_its_id(async_client, servicer, description):
    servicer.described = [description("job-1"), description("job-2", pb.JOB_STATE_RUNNING)]
    assert (await async_client.get("job-2")).state is JobState.RUNNING
    with pytest.raises(JobNotFoundError):
        await async_client.get("job-3")


async def test_jobs_are_listed_page_by_page(async_client, servicer, description):
    servicer.described = [description(f"job-{number}") for number in range(3)]
    assert [job.job_id async for job in async_client.list_jobs(page_size=10)] == ["job-0", "job-1", "job-2"]
    assert [request.page_token for request in servicer.lists] == ["", "2"]
    assert [job async for job in async_client.list_jobs([JobState.FAILED])] == []


async def test_a_picture_travels_once_as_long_as_the_server_has_it(async_client, servicer, script, failure):
    style = bytes(20_000)
    missing = failure(grpc.StatusCode.NOT_FOUND, resource=("nst.v1.Picture", "x"))
    for steps in ([], [], [missing], []):
        script.sequence = 0
        servicer.attempts.append(steps or script.job())
    for _ in range(3):
        await async_client.stylize(b"content", style)
    sources = [request.styles[0].picture.WhichOneof("source") for request in servicer.requests]
    assert sources == ["data", "sha256", "sha256", "data"]


async def test_the_server_describes_itself(async_client, servicer):
    servicer.info = pb.GetServerInfoResponse(version="9.9")
    assert (await async_client.info()).version == "9.9"


async def test_health_tells_whether_the_server_takes_jobs(async_client, servicer):
    assert await async_client.health() is Health.SERVING
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await async_client.health() is Health.NOT_SERVING


async def test_waiting_ends_when_the_server_takes_jobs(async_client, servicer):
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    waiting = asyncio.create_task(async_client.wait_until_ready(SOON))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.1)
    assert not waiting.done()
    servicer.health.set("", health_pb2.HealthCheckResponse.SERVING)
    await waiting


async def test_waiting_for_a_server_that_never_takes_jobs_ends_with_the_timeout(async_client, servicer):
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with pytest.raises(DeadlineExceededError):
        await async_client.wait_until_ready(0.1)


async def test_a_channel_of_the_caller_is_used_and_stays_open(target, servicer):
    servicer.info = pb.GetServerInfoResponse(version="9.9")
    async with grpc.aio.insecure_channel(target) as channel:
        async with AsyncStyleTransferClient(channel=channel) as client:
            assert (await client.info()).version == "9.9"
        assert (await AsyncStyleTransferClient(channel=channel).info()).version == "9.9"


def test_a_client_that_is_made_before_any_event_loop_serves_each_loop(target, servicer, script):
    client = AsyncStyleTransferClient(target)
    servicer.attempts = [script.job(b"the picture")] * 2

    async def run():
        assert (await client.info(timeout=SOON)).running_jobs == 0
        return (await client.stylize(b"content", b"style")).data

    assert [asyncio.run(run()) for _ in range(2)] == [b"the picture"] * 2
    asyncio.run(client.close())


def test_a_client_that_is_never_used_needs_no_event_loop_to_be_made(target):
    client = AsyncStyleTransferClient(target)
    asyncio.run(client.close())


async def test_a_client_that_is_closed_takes_no_more_calls(target):
    client = AsyncStyleTransferClient(target)
    await client.close()
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await client.info()


async def test_closing_a_client_under_a_call_is_an_error_that_a_task_group_sees(target, servicer):
    arrived, leave = threading.Event(), threading.Event()

    servicer.before_info = lambda: (arrived.set(), leave.wait(SOON))
    client = AsyncStyleTransferClient(target)

    async def close():
        await asyncio.to_thread(arrived.wait, SOON)
        await client.close()

    try:
        with pytest.RaisesGroup(pytest.RaisesExc(UnavailableError, match="the client was closed")):
            async with asyncio.TaskGroup() as group:
                group.create_task(client.info())
                group.create_task(close())
    finally:
        leave.set()


async def test_a_cancelled_task_stays_cancelled_in_a_call_with_one_response(target, servicer):
    arrived, leave = threading.Event(), threading.Event()
    servicer.before_info = lambda: (arrived.set(), leave.wait(SOON))
    async with AsyncStyleTransferClient(target) as client:
        task = asyncio.create_task(client.info())
        await asyncio.to_thread(arrived.wait, SOON)
        task.cancel()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_closing_a_client_that_waits_for_its_server_is_an_error(servicer, target):
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    client = AsyncStyleTransferClient(target)
    waiting = asyncio.create_task(client.wait_until_ready(SOON))
    await asyncio.sleep(0.3)
    await client.close()
    with pytest.raises((UnavailableError, grpc.aio.UsageError)):
        await waiting


@pytest.mark.parametrize("seconds", [math.inf, 1e12, 1e300])
async def test_a_timeout_that_never_passes_is_none(async_client, servicer, script, seconds):
    servicer.attempts = [script.job()]
    assert (await async_client.info(timeout=seconds)).running_jobs == 0
    assert await async_client.health(timeout=seconds) is Health.SERVING
    await async_client.wait_until_ready(seconds)
    assert (await async_client.stylize(b"content", b"style", timeout=seconds)).data == b"the picture"


async def test_a_timeout_that_is_no_number_is_named(async_client):
    with pytest.raises(InvalidRequestError, match="timeout: is nan, accepted are a number of seconds and None"):
        await async_client.info(timeout=math.nan)
    with pytest.raises(InvalidRequestError, match="timeout: is nan"):
        async_client.stream(b"content", b"style", timeout=math.nan)


async def test_a_submitted_job_goes_on_by_itself_and_gives_its_picture_later(async_client, servicer, script):
    events = script.job()
    servicer.attempts = [[events[0], servicer.wait_for_end]]
    job = await async_client.submit(b"content", b"style", request_id="order-1")
    assert await ended(servicer)
    assert servicer.cancelled == []
    assert servicer.requests[0].disconnect_policy == pb.DISCONNECT_POLICY_KEEP_RUNNING
    assert servicer.request_ids == ["order-1"]
    assert job.job_id == "job-1"
    assert job.accepted.estimate.seconds == 2.5
    servicer.watch_attempts = [events[1:], events]
    async with job.events() as followed:
        assert isinstance([event async for event in followed][-1], Completed)
    assert followed.result.data == b"the picture"
    seen = []
    assert (await job.result(on_event=seen.append)).data == b"the picture"
    assert isinstance(seen[0], Accepted)
    assert servicer.watches == [
        pb.WatchJobRequest(job_id="job-1", after_sequence=job.accepted.sequence),
        pb.WatchJobRequest(job_id="job-1"),
    ]


async def test_a_submitted_job_can_be_cancelled_and_described(async_client, servicer, script, description):
    servicer.attempts, servicer.described = [[script.accepted(), servicer.wait_for_end]], [description()]
    job = await async_client.submit(b"content", b"style")
    await job.cancel()
    assert servicer.cancelled == ["job-1"]
    assert (await job.get()).job_id == "job-1"


async def test_a_job_that_is_refused_is_not_submitted(async_client, servicer, lost):
    servicer.attempts = [[lost]] * 9
    with pytest.raises(UnavailableError):
        await async_client.submit(b"content", b"style", timeout=1.0)


async def test_submit_takes_every_field_of_a_request_but_keep_running(async_client):
    with pytest.raises(TypeError, match=r"'keep_running', accepted are content, styles, .*request_id"):
        await async_client.submit(b"content", b"style", keep_running=True)


async def test_the_picture_of_a_job_is_found_by_its_request(async_client, servicer, script):
    servicer.request_ids, servicer.watch_attempts = ["order-1"], [script.job()]
    assert (await async_client.result(request_id="order-1")).data == b"the picture"
    with pytest.raises(InvalidRequestError):
        await async_client.result()
