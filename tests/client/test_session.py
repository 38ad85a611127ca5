import hashlib

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client.errors import (
    CorruptResultError,
    InternalError,
    InvalidRequestError,
    JobCancelledError,
    JobNotFoundError,
    PictureNotFoundError,
    ProtocolError,
    ResultNotReadyError,
    StoreError,
    UnavailableError,
)
from nst_client.events import (
    Accepted,
    Completed,
    Preparing,
    Preview,
    Progress,
    Queued,
    Reconnected,
    Reduced,
    Started,
    StopReason,
)
from nst_client.session import Session, StreamAssembler, is_lost, is_refusal, reconnect_delay, retry_delay
from nst_client.translate import request_to_proto
from nst_client.uploads import SentPictures, Upload


@pytest.fixture
def assembler():
    return StreamAssembler()


def feed(assembler, messages):
    return [event for message in messages if (event := assembler.feed(message)) is not None]


def test_every_event_is_given_in_order_and_the_pieces_of_the_picture_are_not(assembler, script):
    events = feed(assembler, script.job())
    assert [type(event) for event in events] == [
        Accepted,
        Queued,
        Started,
        Preparing,
        Progress,
        Preview,
        Reduced,
        Completed,
    ]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6, 7, 11]


def test_the_pieces_become_the_picture_of_the_header(assembler, script):
    data = bytes(range(256)) * 100
    feed(assembler, script.job(data))
    result = assembler.finish()
    assert result.data == data
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert (result.media_type, result.width, result.height) == ("image/png", 64, 48)
    assert result.job_id == "job-1"
    assert result.completed.stop_reason is StopReason.ITERATIONS


def test_the_job_id_is_known_once_the_job_is_accepted(assembler, script):
    assert assembler.job_id is None
    assembler.feed(script.accepted("job-7"))
    assert assembler.job_id == "job-7"


def test_an_unknown_kind_of_event_is_skipped_wherever_it_comes(assembler, script):
    assert assembler.feed(pb.JobEvent(sequence=0)) is None
    first, *rest = script.job()
    assembler.feed(first)
    assert assembler.feed(pb.JobEvent.FromString(b"\x08\x01\xfa\x01\x00")) is None
    feed(assembler, rest)
    assert assembler.finish().data == b"the picture"


def test_a_gap_between_chunks_is_refused(assembler, script):
    feed(assembler, [script.accepted(), script.header(b"0123456789"), script.chunk(0, b"0123")])
    with pytest.raises(CorruptResultError, match="starts at byte 5, expected was byte 4"):
        assembler.feed(script.chunk(5, b"56789"))


def test_a_chunk_that_comes_twice_is_refused(assembler, script):
    feed(assembler, [script.accepted(), script.header(b"0123456789"), script.chunk(0, b"0123")])
    with pytest.raises(CorruptResultError, match="starts at byte 0"):
        assembler.feed(script.chunk(0, b"0123"))


def test_more_bytes_than_the_header_announced_are_not_buffered(assembler, script):
    feed(assembler, [script.accepted(), script.header(b"0123"), script.chunk(0, b"012")])
    with pytest.raises(CorruptResultError, match="more than the announced 4 bytes"):
        assembler.feed(script.chunk(3, b"34"))


def test_fewer_bytes_than_the_header_announced_are_refused(assembler, script):
    feed(assembler, [script.accepted(), script.header(b"0123"), script.chunk(0, b"012")])
    with pytest.raises(CorruptResultError, match="3 of the announced 4 bytes"):
        assembler.feed(script.completed())


def test_a_picture_with_another_checksum_is_refused(assembler, script):
    feed(assembler, [script.accepted(), script.header(b"0123"), script.chunk(0, b"0124")])
    with pytest.raises(CorruptResultError, match="SHA-256"):
        assembler.feed(script.completed())


@pytest.mark.parametrize("size", [0, -1])
def test_a_header_without_a_size_is_refused(assembler, script, size):
    assembler.feed(script.accepted())
    with pytest.raises(ProtocolError, match=f"picture of {size} bytes"):
        assembler.feed(script.header(b"x", size_bytes=size))


@pytest.mark.parametrize(
    ("before", "wrong", "message"),
    [
        ([], "started", "started came before accepted"),
        (["accepted"], "accepted", "accepted came twice"),
        (["accepted"], "chunk", "result_chunk came before result_header"),
        (["accepted"], "completed", "completed came before result_header"),
        (["accepted", "header"], "header", "result_header came twice"),
        (["accepted", "picture"], "started", "started came after completed"),
    ],
)
def test_an_event_out_of_place_is_refused(assembler, script, before, wrong, message):
    build = {
        "accepted": lambda: [script.accepted()],
        "started": lambda: [script.started()],
        "header": lambda: [script.header(b"x")],
        "chunk": lambda: [script.chunk(0, b"x")],
        "completed": lambda: [script.completed()],
        "picture": lambda: script.picture(b"x"),
    }
    for name in before:
        feed(assembler, build[name]())
    with pytest.raises(ProtocolError, match=message):
        feed(assembler, build[wrong]())


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_sequence_that_does_not_grow_is_refused(assembler, script, sequence):
    feed(assembler, [script.accepted(), script.started()])
    late = script.progress(1)
    late.sequence = sequence
    with pytest.raises(ProtocolError, match=f"progress has sequence {sequence}, which does not come after 2"):
        assembler.feed(late)


def test_missed_sequences_are_no_fault(assembler, script):
    assembler.feed(script.accepted())
    script.sequence += 50
    assert assembler.feed(script.progress(9)).sequence == 52


def test_a_stream_that_ends_without_completed_has_no_result(assembler, script):
    feed(assembler, script.job()[:-1])
    with pytest.raises(ProtocolError, match="ended before the job was completed"):
        assembler.finish()


def decide(error, **changes):
    return retry_delay(error, **{"attempt": 0, "retries": 2, "remaining": None, "jitter": 1.0} | changes)


def unavailable(failure, retry_after=None):
    status = failure(UnavailableError.default_code, retry_after=retry_after).status
    return UnavailableError("no", status=status)


def test_a_retry_is_never_earlier_than_the_server_suggests(failure):
    assert decide(unavailable(failure, 3.0), jitter=0.0) == 3.0
    assert decide(unavailable(failure, 3.0), jitter=1.0) > 3.0


def test_the_backoff_doubles_where_the_server_suggests_nothing():
    error = UnavailableError("refused")
    assert [decide(error, attempt=attempt, retries=3) for attempt in range(3)] == [0.5, 1.0, 2.0]
    assert decide(error, jitter=0.0) == 0.25


def test_there_are_no_more_retries_than_allowed():
    assert decide(UnavailableError("refused"), attempt=1) is not None
    assert decide(UnavailableError("refused"), attempt=2) is None
    assert decide(UnavailableError("refused"), retries=0) is None


def test_a_retry_that_would_be_past_the_timeout_is_not_made(failure):
    assert decide(unavailable(failure, 3.0), remaining=10.0) is not None
    assert decide(unavailable(failure, 3.0), remaining=3.0) is None


def test_a_server_that_suggests_to_wait_very_long_is_not_waited_for(failure):
    assert decide(unavailable(failure, 60.0)) is not None
    assert decide(unavailable(failure, 61.0)) is None


@pytest.mark.parametrize("error", [InternalError("bug"), InvalidRequestError.of("content", "is no picture")])
def test_a_failure_that_would_come_again_is_not_retried(error):
    assert decide(error) is None


def test_a_full_store_is_tried_again_where_the_server_suggests_it(failure):
    status = failure(StoreError.default_code, reason="STORE_FULL", retry_after=3.0).status
    assert decide(StoreError("full", status=status), jitter=0.0) == 3.0
    assert decide(StoreError("read-only")) is None


def of(failure, code, message="", **details):
    """An error with a status of the server where there are details, and without one where there are none."""
    status = failure(grpc.StatusCode[code], message, **details).status if details else None
    kind = {"UNAVAILABLE": UnavailableError, "CANCELLED": JobCancelledError}.get(code, InternalError)
    return kind(message, code=grpc.StatusCode[code], status=status)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED"])
def test_a_status_without_details_is_a_connection_that_broke(failure, code):
    assert is_lost(of(failure, code, "RST_STREAM"))


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "CANCELLED"])
def test_a_status_with_details_is_the_servers(failure, code):
    assert not is_lost(of(failure, code, "because", reason="SOMETHING"))


def test_an_unavailable_server_leaves_its_jobs_for_later(failure):
    assert is_lost(of(failure, "UNAVAILABLE", reason="DRAINING", retry_after=2.0))


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "UNAUTHENTICATED", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
def test_other_statuses_tell_of_no_lost_connection(failure, code):
    assert not is_lost(of(failure, code))


@pytest.mark.parametrize(
    "message",
    [
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        "DNS resolution failed for nst.example:50051",
        "errors resolving nst.example:50051",
    ],
)
def test_a_server_that_was_never_there_is_told_from_one_that_is_gone(failure, message):
    assert is_refusal(of(failure, "UNAVAILABLE", message))
    assert not is_refusal(of(failure, "UNAVAILABLE", "Socket closed"))


def look(error, **changes):
    values = {"attempt": 0, "lost_seconds": 0.0, "budget": 60.0, "remaining": None, "jitter": 1.0}
    return reconnect_delay(error, **values | changes)


def test_the_search_for_a_server_slows_down_to_a_limit():
    error = UnavailableError("gone")
    assert [look(error, attempt=attempt) for attempt in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]


def test_the_jitter_is_full_but_for_a_busy_loop():
    error = UnavailableError("gone")
    assert look(error, attempt=3, jitter=0.5) == 2.0
    assert look(error, attempt=3, jitter=0.0) == 0.05


def test_the_search_is_never_earlier_than_the_server_suggests(failure):
    assert look(unavailable(failure, 3.0), jitter=1.0) == 3.5
    assert 3.0 < look(unavailable(failure, 3.0), jitter=0.0) < 3.5


def test_the_last_attempt_is_made_when_the_time_is_over():
    error = UnavailableError("gone")
    assert look(error, attempt=9, lost_seconds=57.0) == 3.0
    assert look(error, lost_seconds=60.0) is None


def test_a_server_that_suggests_more_than_there_is_time_for_is_given_up(failure):
    assert look(unavailable(failure, 5.0), lost_seconds=56.0) is None


def test_the_search_never_goes_past_the_timeout():
    error = UnavailableError("gone")
    assert look(error, remaining=0.6) == 0.5
    assert look(error, remaining=0.5) is None


def session_of(opening=None, *, keep_running=False, timeout=10.0, reconnect_seconds=60.0):
    opening = opening or Upload(lambda: request_to_proto(b"content", b"style"), SentPictures())
    return Session(
        opening,
        keep_running=keep_running,
        timeout=timeout,
        retries=2,
        reconnect_seconds=reconnect_seconds,
        now=100.0,
    )


@pytest.fixture
def session():
    return session_of()


def receive(session, events, now=100.0):
    return [event for message in events for event in session.receive(message, now=now)]


def test_a_session_counts_its_attempts(session, failure):
    error = of(failure, "UNAVAILABLE", reason="WARMING_UP")
    assert session.fail(error, now=100.0, jitter=1.0) == 0.5
    assert session.fail(error, now=100.0, jitter=1.0) == 1.0
    with pytest.raises(UnavailableError) as caught:
        session.fail(error, now=100.0, jitter=1.0)
    assert caught.value is error


def test_a_server_that_was_never_there_is_looked_for_as_often_as_it_may_refuse(session, failure):
    error = of(failure, "UNAVAILABLE", "failed to connect to all addresses")
    session.fail(error, now=100.0, jitter=1.0)
    session.fail(error, now=100.0, jitter=1.0)
    with pytest.raises(UnavailableError):
        session.fail(error, now=100.0, jitter=1.0)


def test_a_server_that_broke_the_connection_before_it_accepted_is_looked_for_longer(session, failure):
    session.next_request(100.0)
    session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=100.0, jitter=1.0)
    refused = of(failure, "UNAVAILABLE", "failed to connect to all addresses")
    for second in range(1, 5):
        session.next_request(100.0 + second)
        assert session.fail(refused, now=100.0 + second, jitter=0.0) == 0.05
    assert session.next_request(105.0).content.data == b"content"


def test_an_accepted_job_is_watched_from_the_last_event_on(session, script, failure):
    receive(session, script.job()[:5])
    assert session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=100.0, jitter=1.0) == 0.5
    assert session.next_request(101.0) == pb.WatchJobRequest(job_id="job-1", after_sequence=5)


def test_a_session_without_reconnecting_ends_an_accepted_job(script, failure):
    session = session_of(reconnect_seconds=0)
    receive(session, [script.accepted()])
    with pytest.raises(UnavailableError):
        session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=100.0, jitter=1.0)


def test_the_first_news_tell_of_the_lost_contact(session, script, failure):
    job = script.job()
    receive(session, job[:5])
    error = of(failure, "UNAVAILABLE", "Socket closed")
    for now in (101.0, 102.0):
        session.fail(error, now=now, jitter=0.0)
        session.next_request(now)
    # Known events are no news.
    assert receive(session, job[2:5], now=103.0) == []
    event, preview = receive(session, job[5:6], now=103.5)
    assert event == Reconnected(sequence=5, attempts=2, seconds=2.5, began_anew=False)
    assert isinstance(preview, Preview)
    assert len(receive(session, job[6:], now=104.0)) == 2


def test_a_piece_of_the_picture_is_news_too(session, script, failure):
    job = script.job()
    receive(session, job[:7])
    session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=101.0, jitter=0.0)
    assert [type(event) for event in receive(session, job[7:8], now=102.0)] == [Reconnected]


def test_a_kind_of_event_that_is_unknown_is_no_news(session, script, failure):
    receive(session, [script.accepted()])
    session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=101.0, jitter=0.0)
    assert session.receive(pb.JobEvent(sequence=9), now=101.0) == []
    assert session.next_request(101.0).after_sequence == 1


def test_the_budget_is_spent_without_news_and_full_again_after_them(script, failure):
    session = session_of(timeout=None)
    job = script.job()
    receive(session, job[:2])
    error = of(failure, "UNAVAILABLE", "Socket closed")
    for now in (100.0, 120.0, 140.0, 159.0):
        session.next_request(now)
        assert session.fail(error, now=now, jitter=0.0) is not None
    receive(session, job[2:3])
    session.next_request(160.0)
    assert session.fail(error, now=160.0, jitter=1.0) == 0.5
    session.next_request(219.0)
    session.fail(error, now=219.0, jitter=0.0)
    session.next_request(220.0)
    with pytest.raises(UnavailableError):
        session.fail(error, now=220.0, jitter=0.0)


def test_a_call_that_held_for_long_had_reached_the_server(script, failure):
    # As where something between them closes connections on which nothing happens for a minute.
    session = session_of(timeout=None)
    receive(session, [script.accepted(), script.queued()])
    error = of(failure, "UNAVAILABLE", "Socket closed")
    for now in range(160, 1000, 60):
        assert session.fail(error, now=float(now), jitter=1.0) == 0.5
        session.next_request(now + 0.5)


def test_a_loss_after_the_last_event_is_none(session, script, failure):
    receive(session, script.job())
    assert session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=100.0, jitter=1.0) is None
    assert session.result.data == b"the picture"


def test_a_job_that_the_server_has_lost_is_sent_again_once(session, script, failure):
    receive(session, [script.accepted()])
    session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=101.0, jitter=1.0)
    assert session.fail(JobNotFoundError("lost"), now=102.0, jitter=1.0) == 0.0
    assert session.job_id is None
    assert isinstance(session.next_request(102.0), pb.StylizeRequest)
    events = receive(session, [script.accepted("job-2")], now=103.0)
    assert events[0] == Reconnected(sequence=0, attempts=2, seconds=2.0, began_anew=True)
    assert session.job_id == "job-2"
    with pytest.raises(JobNotFoundError):
        session.fail(JobNotFoundError("lost"), now=104.0, jitter=1.0)


def test_a_refusal_of_a_job_that_begins_anew_is_retried(session, script, failure):
    receive(session, [script.accepted()])
    session.fail(of(failure, "UNAVAILABLE", "Socket closed"), now=101.0, jitter=1.0)
    session.fail(JobNotFoundError("lost"), now=102.0, jitter=1.0)
    assert session.fail(unavailable(failure, 3.0), now=103.0, jitter=0.0) >= 3.0


def test_a_picture_that_the_server_misses_is_sent_at_once_and_costs_no_retry():
    sent = SentPictures()
    style = bytes(20_000)
    sent.add([hashlib.sha256(style).hexdigest()])
    session = session_of(Upload(lambda: request_to_proto(b"content", style), sent))
    assert session.next_request(100.0).styles[0].picture.HasField("sha256")
    error = PictureNotFoundError("unknown")
    assert session.fail(error, now=100.0, jitter=1.0) == 0.0
    assert session.next_request(100.0).styles[0].picture.data == style
    with pytest.raises(PictureNotFoundError):
        session.fail(error, now=100.0, jitter=1.0)


def test_a_job_that_is_left_is_to_be_cancelled_once(session, script):
    assert session_of().abandon() is None
    receive(session, [script.accepted()])
    assert [session.abandon(), session.abandon()] == [pb.CancelJobRequest(job_id="job-1"), None]


def test_a_job_that_has_ended_or_shall_go_on_is_not_to_be_cancelled(script, failure):
    completed, failed, kept = session_of(), session_of(), session_of(keep_running=True)
    receive(completed, script.job())
    completed.end()
    for session in (failed, kept):
        script.sequence = 0
        receive(session, [script.accepted()])
    with pytest.raises(InternalError):
        failed.fail(of(failure, "INTERNAL", reason="LOSS_NOT_FINITE"), now=100.0, jitter=1.0)
    assert [session.abandon() for session in (completed, failed, kept)] == [None] * 3


def test_the_timeout_of_a_session_spans_its_attempts(session):
    assert session.remaining(100.0) == 10.0
    assert session.remaining(104.0) == 6.0
    assert session.remaining(111.0) == 0.0
    assert session_of(timeout=None).remaining(5.0) is None


def test_a_result_that_is_asked_for_too_early_is_a_clear_error(session, script):
    receive(session, script.job())
    with pytest.raises(ResultNotReadyError, match="before the events are exhausted"):
        _ = session.result
    session.end()
    assert session.result.data == b"the picture"
