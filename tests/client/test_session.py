import hashlib

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client.errors import (
    CorruptResultError,
    InternalError,
    InvalidRequestError,
    ProtocolError,
    ResultNotReadyError,
    UnavailableError,
)
from nst_client.events import Accepted, Completed, Preparing, Preview, Progress, Queued, Started, StopReason
from nst_client.session import Session, StreamAssembler, retry_delay


@pytest.fixture
def assembler():
    return StreamAssembler()


def feed(assembler, messages):
    return [event for message in messages if (event := assembler.feed(message)) is not None]


def test_every_event_is_given_in_order_and_the_pieces_of_the_picture_are_not(assembler, script):
    events = feed(assembler, script.job())
    assert [type(event) for event in events] == [Accepted, Queued, Started, Preparing, Progress, Preview, Completed]
    assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6, 10]


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


@pytest.fixture
def session():
    return Session(timeout=10.0, retries=2, now=100.0)


def test_a_session_counts_its_attempts(session):
    error = UnavailableError("refused")
    assert session.fail(error, now=100.0, jitter=1.0) == 0.5
    assert session.fail(error, now=100.0, jitter=1.0) == 1.0
    with pytest.raises(UnavailableError) as caught:
        session.fail(error, now=100.0, jitter=1.0)
    assert caught.value is error


def test_a_session_never_retries_an_accepted_job(session, script):
    session.receive(pb.StylizeResponse(event=script.accepted()))
    with pytest.raises(UnavailableError):
        session.fail(UnavailableError("gone"), now=100.0, jitter=1.0)


def test_the_timeout_of_a_session_spans_its_attempts(session):
    assert session.remaining(100.0) == 10.0
    assert session.remaining(104.0) == 6.0
    assert session.remaining(111.0) == 0.0
    assert Session(timeout=None, retries=0, now=0.0).remaining(5.0) is None


def test_a_result_that_is_asked_for_too_early_is_a_clear_error(session, script):
    for event in script.job():
        session.receive(pb.StylizeResponse(event=event))
    with pytest.raises(ResultNotReadyError, match="before the events are exhausted"):
        _ = session.result
    session.end()
    assert session.result.data == b"the picture"
