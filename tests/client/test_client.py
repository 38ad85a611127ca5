import hashlib
import math
import socket
import threading
import time
from concurrent import futures

import grpc
import grpc_testing
import pytest
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_client import (
    Accepted,
    Completed,
    CorruptResultError,
    DeadlineExceededError,
    Health,
    InternalError,
    InvalidRequestError,
    JobCancelledError,
    JobNotFoundError,
    JobState,
    PictureNotFoundError,
    Preview,
    ProtocolError,
    QueueFullError,
    RequestConflictError,
    RequestTooLargeError,
    ResultNotReadyError,
    StopReason,
    Style,
    StyleTransferClient,
    TransferOptions,
    UnavailableError,
)

SERVICE = pb.DESCRIPTOR.services_by_name["StyleTransferService"]
SOON = 10.0
"""Seconds after which a test that waits has failed."""


@pytest.fixture
def nobody():
    """Where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_one_call_gives_the_picture(client, servicer, script, pictures, tmp_path):
    data = bytes(range(256)) * 4096
    servicer.attempts = [script.job(data)]
    seen = []
    result = client.stylize(
        pictures[0],
        [pictures[1], Style(pictures[2], weight=2.0)],
        options=TransferOptions(iterations=20),
        on_event=seen.append,
    )
    result.save(tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == data
    assert isinstance(seen[0], Accepted)
    assert seen[-1] is result.completed
    assert servicer.requests == [
        pb.StylizeRequest(
            content=pb.Picture(data=b"content.jpg"),
            styles=[
                pb.Style(picture=pb.Picture(data=b"style.jpg")),
                pb.Style(picture=pb.Picture(data=b"other.jpg"), weight=2.0),
            ],
            options=pb.TransferOptions(iterations=20),
        )
    ]


def test_a_stream_gives_events_and_then_the_result(client, servicer, script):
    servicer.attempts = [script.job()]
    with client.stream(b"content", b"style") as events:
        assert events.job_id is None
        assert next(events).job_id == events.job_id == "job-1"
        with pytest.raises(ResultNotReadyError):
            _ = events.result
        *_, last = events
        assert isinstance(last, Completed)
        assert list(events) == []
    assert events.result.data == b"the picture"


def test_a_request_of_many_megabytes_is_the_servers_to_refuse(client, servicer):
    servicer.attempts = [[]]
    with pytest.raises(RequestTooLargeError) as caught:
        client.stylize(bytes(5 * 2**20), b"style")
    assert caught.value.limit == 4 * 2**20
    assert caught.value.size > 5 * 2**20
    assert servicer.requests == []


def test_leaving_a_stream_early_ends_the_job(client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    with client.stream(b"content", b"style") as events:
        next(events)
    assert servicer.cancelled == ["job-1"]
    assert servicer.call_ended.wait(SOON)
    assert list(events) == []
    events.close()
    assert servicer.cancelled == ["job-1"]


def test_leaving_a_job_that_shall_go_on_only_ends_the_call(client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    with client.stream(b"content", b"style", keep_running=True) as events:
        next(events)
    assert servicer.call_ended.wait(SOON)
    assert servicer.requests[0].disconnect_policy == pb.DISCONNECT_POLICY_KEEP_RUNNING
    assert servicer.cancelled == []


def test_leaving_a_watched_job_only_ends_the_call(client, servicer, script):
    servicer.watch_attempts = [[script.accepted(), servicer.wait_for_end]]
    with client.watch("job-1") as events:
        next(events)
    assert servicer.call_ended.wait(SOON)
    assert servicer.cancelled == []


def test_a_job_that_has_ended_is_not_cancelled(client, servicer, script, failure):
    failed = failure(grpc.StatusCode.INTERNAL, reason="LOSS_NOT_FINITE")
    servicer.attempts = [script.job(), [script.accepted(), failed]]
    client.stylize(b"content", b"style")
    with pytest.raises(InternalError):
        client.stylize(b"content", b"style")
    assert servicer.cancelled == []


def test_leaving_a_job_whose_server_is_gone_is_no_error(client, servicer, script, host):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    with client.stream(b"content", b"style") as events:
        next(events)
        host.stop().wait()
    assert list(events) == []


def test_leaving_a_job_after_its_channel_is_no_error(target, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    channel = grpc.insecure_channel(target)
    with StyleTransferClient(channel=channel).stream(b"content", b"style") as events:
        next(events)
        channel.close()
    assert servicer.call_ended.wait(SOON)


def test_closing_the_client_ends_its_calls(target, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    client = StyleTransferClient(target)
    events = client.stream(b"content", b"style")
    next(events)
    client.close()
    assert servicer.cancelled == ["job-1"]
    assert servicer.call_ended.wait(SOON)
    with pytest.raises(JobCancelledError, match="no longer follows the job job-1"):
        next(events)


def test_cancelling_keeps_the_best_picture_so_far(client, servicer, script):
    picture = script.picture(stop_reason=pb.STOP_REASON_CANCELLED)
    early = script.accepted()
    early.sequence = 0
    servicer.attempts = [[early, servicer.wait_for_cancel, *picture]]
    with client.stream(b"content", b"style") as events:
        next(events)
        assert events.cancel() is JobState.RUNNING
        list(events)
    assert servicer.cancelled == ["job-1"]
    assert events.result.completed.stop_reason is StopReason.CANCELLED
    assert events.result.data == b"the picture"


def test_cancelling_before_there_is_a_job_ends_the_call(client, servicer):
    servicer.attempts = [[servicer.wait_for_end]]
    with client.stream(b"content", b"style") as events:
        threading.Timer(0.05, events.cancel).start()
        with pytest.raises(JobCancelledError):
            next(events)
    assert servicer.call_ended.wait(SOON)


@pytest.mark.parametrize("keep_running", [False, True])
def test_a_job_that_was_perhaps_accepted_is_cancelled_by_its_request_id(client, servicer, keep_running):
    servicer.attempts = [[servicer.wait_for_end]]
    with client.stream(b"content", b"style", keep_running=keep_running) as events:
        while not servicer.requests:
            time.sleep(0.01)
        assert events.cancel() is None
    assert servicer.cancelled == servicer.request_ids != []


@pytest.mark.parametrize("keep_running", [False, True])
def test_leaving_a_stream_before_there_is_a_job_ends_what_may_come_of_it(client, servicer, keep_running):
    servicer.attempts = [[servicer.wait_for_end]]
    with client.stream(b"content", b"style", request_id="order-1", keep_running=keep_running):
        while not servicer.requests:
            time.sleep(0.01)
    assert servicer.call_ended.wait(SOON)
    assert servicer.cancelled == ([] if keep_running else ["order-1"])


def test_a_request_that_was_refused_is_not_cancelled(client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=50.0)]]
    with client.stream(b"content", b"style") as events, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        threading.Timer(0.05, events.cancel).start()
        with pytest.raises(JobCancelledError):
            waiting.result(SOON)
    assert servicer.cancelled == []


def test_cancelling_while_waiting_for_a_retry_gives_up_at_once(client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=50.0)]]
    with client.stream(b"content", b"style") as events, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        threading.Timer(0.05, events.cancel).start()
        with pytest.raises(JobCancelledError, match="before it was accepted"):
            waiting.result(SOON)
    assert len(servicer.requests) == 1


def test_closing_while_waiting_for_a_retry_gives_up_at_once(client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=50.0)]]
    with client.stream(b"content", b"style") as events, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, events)
        threading.Timer(0.05, events.close).start()
        with pytest.raises(JobCancelledError, match="before it was accepted"):
            waiting.result(SOON)
        assert list(events) == []


def test_a_job_that_the_server_cancels_before_a_picture_is_an_error(client, servicer, script, failure):
    servicer.attempts = [[script.accepted(), failure(grpc.StatusCode.CANCELLED, "no picture", reason="CANCELLED")]]
    with pytest.raises(JobCancelledError, match="no picture"):
        client.stylize(b"content", b"style")


@pytest.mark.parametrize(
    ("code", "reason"),
    [("UNAVAILABLE", "WARMING_UP"), ("UNAVAILABLE", "DRAINING"), ("RESOURCE_EXHAUSTED", "QUEUE_FULL")],
)
@pytest.mark.usefixtures("no_jitter")
def test_a_job_that_is_not_taken_yet_is_sent_again(*, client, servicer, script, failure, code, reason):
    refusal = failure(grpc.StatusCode[code], reason=reason, retry_after=0.02)
    servicer.attempts = [[refusal], [refusal], script.job()]
    assert client.stylize(b"content", b"style").data == b"the picture"
    assert len(servicer.requests) == 3


@pytest.mark.usefixtures("no_jitter")
def test_retries_end(client, servicer, failure):
    refusal = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="QUEUE_FULL", retry_after=0.02)
    servicer.attempts = [[refusal]] * 3
    with pytest.raises(QueueFullError, match="full"):
        client.stylize(b"content", b"style")
    assert len(servicer.requests) == 3


def test_a_client_without_retries_makes_none(target, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, retry_after=0.0)]]
    with StyleTransferClient(target, retries=0) as client, pytest.raises(UnavailableError):
        client.stylize(b"content", b"style")
    assert len(servicer.requests) == 1


def test_a_retry_past_the_timeout_is_not_made(client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, retry_after=30.0)]]
    with pytest.raises(UnavailableError):
        client.stylize(b"content", b"style", timeout=20.0)
    assert len(servicer.requests) == 1


class _Timeouts(grpc.UnaryStreamClientInterceptor):
    """Records the timeouts that gRPC is given."""

    def __init__(self):
        self.given = []

    def intercept_unary_stream(self, continuation, client_call_details, request):
        self.given.append(client_call_details.timeout)
        return continuation(client_call_details, request)


@pytest.mark.usefixtures("no_jitter")
def test_the_timeout_reaches_the_server_and_shrinks_over_retries(target, servicer, script, failure):
    # The exact bounds hold for what gRPC is given: on the wire it rounds a timeout up by a few percent.
    servicer.attempts = [[failure(grpc.StatusCode.UNAVAILABLE, retry_after=0.5)], script.job()]
    timeouts = _Timeouts()
    with grpc.insecure_channel(target) as channel:
        client = StyleTransferClient(channel=grpc.intercept_channel(channel, timeouts))
        client.stylize(b"content", b"style", timeout=4.0)
    first, second = timeouts.given
    assert 0 < second <= first - 0.5
    assert first <= 4.0
    first, second = servicer.remaining
    assert 0 < second < first


def test_a_timeout_that_passes_is_an_error(client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]
    with pytest.raises(DeadlineExceededError):
        client.stylize(b"content", b"style", timeout=0.1)


@pytest.mark.usefixtures("no_jitter")
def test_no_server_is_a_clear_error_after_the_retries(nobody):
    with StyleTransferClient(nobody, retries=1) as client, pytest.raises(UnavailableError) as caught:
        client.stylize(b"content", b"style")
    assert caught.value.retry_after is None


def test_an_error_is_raised_once_and_then_the_stream_is_over(client, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.INVALID_ARGUMENT, violations={"content": "is no picture"})]]
    events = client.stream(b"content", b"style")
    with pytest.raises(InvalidRequestError) as caught:
        next(events)
    assert caught.value.violations[0].field == "content"
    assert list(events) == []
    with pytest.raises(ResultNotReadyError):
        _ = events.result


def test_a_broken_stream_ends_the_call(client, servicer, script):
    servicer.attempts = [[script.accepted(), script.header(b"0123"), script.chunk(2, b"23"), servicer.wait_for_end]]
    with pytest.raises(CorruptResultError):
        client.stylize(b"content", b"style")
    assert servicer.call_ended.wait(SOON)


def test_a_stream_that_ends_too_early_is_a_protocol_error(client, servicer, script):
    servicer.attempts = [script.job()[:-1]]
    with pytest.raises(ProtocolError, match="ended before the job was completed"):
        client.stylize(b"content", b"style")


def test_an_error_in_on_event_ends_the_call(client, servicer, script):
    servicer.attempts = [[script.accepted(), servicer.wait_for_end]]

    def fail(event):
        raise LookupError(event.job_id)

    with pytest.raises(LookupError, match="job-1"):
        client.stylize(b"content", b"style", on_event=fail)
    assert servicer.call_ended.wait(SOON)


def test_previews_carry_their_picture(client, servicer, script):
    servicer.attempts = [[script.accepted(), script.preview(b"small"), *script.picture()]]
    previews = [event for event in client.stream(b"content", b"style") if isinstance(event, Preview)]
    assert [preview.data for preview in previews] == [b"small"]


def test_an_estimate_sends_no_picture_that_the_server_has(client, servicer, script, failure):
    large = bytes(range(256)) * 65
    servicer.attempts = [script.job()]
    client.stylize(large, b"style")
    missing = failure(grpc.StatusCode.NOT_FOUND, resource=("nst.v1.Picture", "x"))
    servicer.estimate_failures = [missing]
    client.estimate(large, b"style")
    by_name, whole = servicer.requests[1:]
    assert by_name.content.sha256 == hashlib.sha256(large).hexdigest()
    assert whole.content.data == large
    # An estimate leaves nothing with the server, which has lost the picture.
    client.estimate(large, b"style")
    assert servicer.requests[-1].content.data == large
    servicer.estimate_failures = [missing]
    with pytest.raises(PictureNotFoundError):
        client.estimate(large, b"style")


def test_a_job_is_cancelled_by_its_id(client, servicer):
    assert client.cancel("job-1") is JobState.RUNNING
    assert servicer.cancelled == ["job-1"]
    with pytest.raises(JobNotFoundError, match="no such job"):
        client.cancel("job-2")


def test_a_job_is_named_by_the_id_of_its_request_too(client, servicer, script, description):
    servicer.request_ids, servicer.watch_attempts = ["order-1"], [script.job()]
    servicer.described = [description("job-2", request_id="order-2"), description(request_id="order-1")]
    assert client.cancel(request_id="order-1") is JobState.RUNNING
    assert servicer.cancelled == ["order-1"]
    assert client.get(request_id="order-1").job_id == "job-1"
    with client.watch(request_id="order-1") as events:
        assert events.job_id is None
        assert next(events).job_id == events.job_id == "job-1"
        list(events)
    assert events.result.data == b"the picture"
    assert servicer.watches == [pb.WatchJobRequest(request_id="order-1")]


def test_a_watched_request_is_followed_over_breaks_by_the_id_of_its_job(client, servicer, script, lost):
    job = script.job()
    servicer.watch_attempts = [[lost], [*job[:3], lost], job[3:]]
    with client.watch(request_id="order-1") as events:
        list(events)
    assert servicer.watches == [
        pb.WatchJobRequest(request_id="order-1"),
        pb.WatchJobRequest(request_id="order-1"),
        pb.WatchJobRequest(job_id="job-1", after_sequence=3),
    ]


@pytest.mark.parametrize("ids", [{}, {"job_id": "job-1", "request_id": "order-1"}])
def test_a_job_has_one_name(client, ids):
    for method in (client.cancel, client.get, client.watch):
        with pytest.raises(InvalidRequestError, match="accepted is one of them"):
            method(**ids)
    with pytest.raises(InvalidRequestError, match="accepted without a job_id is 0"):
        client.watch(request_id="order-1", after_sequence=3)


def test_a_job_is_described_by_its_id(client, servicer, description):
    servicer.described = [description("job-1"), description("job-2", pb.JOB_STATE_RUNNING)]
    job = client.get("job-2")
    assert (job.job_id, job.state, job.progress.iteration) == ("job-2", JobState.RUNNING, 10)
    with pytest.raises(JobNotFoundError):
        client.get("job-3")


def test_jobs_are_listed_page_by_page_as_they_are_asked_for(client, servicer, description):
    servicer.described = [description(f"job-{number}") for number in range(5)]
    jobs = client.list_jobs(page_size=10)
    assert servicer.lists == []
    assert [next(jobs).job_id, next(jobs).job_id] == ["job-0", "job-1"]
    assert len(servicer.lists) == 1
    assert [job.job_id for job in jobs] == ["job-2", "job-3", "job-4"]
    assert [request.page_token for request in servicer.lists] == ["", "2", "4"]
    assert {request.page_size for request in servicer.lists} == {10}


def test_jobs_are_listed_by_their_state(client, servicer, description):
    servicer.described = [description("job-1"), description("job-2", pb.JOB_STATE_RUNNING)]
    assert [job.job_id for job in client.list_jobs([JobState.RUNNING, JobState.QUEUED])] == ["job-2"]


def test_a_request_id_of_the_caller_is_kept_and_one_that_was_used_otherwise_is_an_error(
    client, servicer, script, failure
):
    servicer.attempts = [script.job(), [failure(grpc.StatusCode.ALREADY_EXISTS, resource=("nst.v1.Job", "job-1"))]]
    client.stylize(b"content", b"style", request_id="mine")
    with pytest.raises(RequestConflictError):
        client.stylize(b"other", b"style", request_id="mine")
    assert servicer.request_ids == ["mine", "mine"]


def test_every_request_has_an_id_of_its_own(client, servicer, script):
    for _ in range(2):
        script.sequence = 0
        servicer.attempts.append(script.job())
        client.stylize(b"content", b"style")
    assert len({*servicer.request_ids}) == 2


def test_a_picture_travels_once_as_long_as_the_server_has_it(client, servicer, script, failure):
    style = bytes(20_000)
    missing = failure(grpc.StatusCode.NOT_FOUND, resource=("nst.v1.Picture", "x"))
    for steps in ([], [], [missing], [], []):
        script.sequence = 0
        servicer.attempts.append(steps or script.job())
    for _ in range(4):
        assert client.stylize(b"content", style).data == b"the picture"
    sources = [request.styles[0].picture.WhichOneof("source") for request in servicer.requests]
    assert sources == ["data", "sha256", "sha256", "data", "sha256"]
    assert len(set(servicer.request_ids)) == 4


def test_the_server_describes_itself(client, servicer):
    servicer.info = pb.GetServerInfoResponse(version="9.9", devices=["cpu", "cuda:0"])
    info = client.info()
    assert (info.version, info.devices) == ("9.9", ("cpu", "cuda:0"))


def test_health_tells_whether_the_server_takes_jobs(client, servicer):
    assert client.health() is Health.SERVING
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert client.health() is Health.NOT_SERVING


def test_health_of_no_server_is_an_error(nobody):
    with StyleTransferClient(nobody) as client, pytest.raises(UnavailableError):
        client.health()


def test_waiting_ends_when_the_server_takes_jobs(client, servicer):
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_until_ready, SOON)
        assert not futures.wait([waiting], timeout=0.1).done
        servicer.health.set("", health_pb2.HealthCheckResponse.SERVING)
        waiting.result(SOON)


def test_waiting_for_a_server_that_never_comes_ends_with_the_timeout(nobody):
    with StyleTransferClient(nobody) as client, pytest.raises(DeadlineExceededError):
        client.wait_until_ready(0.1)


def test_a_channel_of_the_caller_is_used_and_stays_open(target, servicer):
    servicer.info = pb.GetServerInfoResponse(version="9.9")
    with grpc.insecure_channel(target) as channel:
        with StyleTransferClient(channel=channel) as client:
            assert client.info().version == "9.9"
        assert StyleTransferClient(channel=channel).info().version == "9.9"


def test_a_call_travels_as_the_contract_says():
    channel = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
    with futures.ThreadPoolExecutor(1) as pool:
        state = pool.submit(StyleTransferClient(channel=channel).cancel, "job-9")
        _, request, rpc = channel.take_unary_unary(SERVICE.methods_by_name["CancelJob"])
        rpc.terminate(pb.CancelJobResponse(state=pb.JOB_STATE_QUEUED), (), grpc.StatusCode.OK, "")
        assert request == pb.CancelJobRequest(job_id="job-9")
        assert state.result(SOON) is JobState.QUEUED


@pytest.mark.parametrize("timeout", [math.inf, 1e12, 1e300])
def test_a_timeout_that_never_passes_is_none(client, servicer, script, timeout):
    servicer.attempts = [script.job()]
    assert client.info(timeout=timeout).running_jobs == 0
    client.wait_until_ready(timeout)
    assert client.stylize(b"content", b"style", timeout=timeout).data == b"the picture"


def test_closing_a_client_under_a_call_says_so(target, servicer):
    arrived, leave = threading.Event(), threading.Event()
    servicer.before_info = lambda: (arrived.set(), leave.wait(10))
    client = StyleTransferClient(target)

    def close():
        arrived.wait(10)
        client.close()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(UnavailableError, match="the client was closed"):
        client.info()
    leave.set()
    closing.join()


def test_a_submitted_job_goes_on_by_itself_and_gives_its_picture_later(client, servicer, script):
    events = script.job()
    servicer.attempts = [[events[0], servicer.wait_for_end]]
    job = client.submit(b"content", b"style")
    servicer.watch_attempts = [events]
    assert job.result().data == b"the picture"
    assert servicer.cancelled == []
    assert servicer.watches == [pb.WatchJobRequest(job_id="job-1")]
