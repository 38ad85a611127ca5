"""What both clients do when the connection or the server is lost."""

import asyncio
import threading
from types import SimpleNamespace

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client import (
    Accepted,
    AsyncStyleTransferClient,
    Disconnected,
    InternalError,
    JobNotFoundError,
    Progress,
    Reconnected,
    Started,
    StyleTransferClient,
    UnavailableError,
)

pytestmark = pytest.mark.usefixtures("no_jitter")

KINDS = 11
"""Events of a job, chunks included."""


@pytest.fixture(params=["sync", "asyncio"])
def client_of(request, target):
    """Follow a job to its end with either client; returns the events and the result, or the error that ends them."""

    def run_sync(begin, options):
        seen = []
        with StyleTransferClient(target, **options) as client, begin(client) as events:
            try:
                seen.extend(events)
                return SimpleNamespace(events=seen, result=events.result, error=None)
            except UnavailableError as error:
                return SimpleNamespace(events=seen, result=None, error=error)

    async def run_asyncio(begin, options):
        seen = []
        async with AsyncStyleTransferClient(target, **options) as client, begin(client) as events:
            try:
                async for event in events:
                    seen.append(event)  # noqa: PERF401 - those before an error count
                return SimpleNamespace(events=seen, result=events.result, error=None)
            except UnavailableError as error:
                return SimpleNamespace(events=seen, result=None, error=error)

    def follow(begin, **options):
        if request.param == "sync":
            return run_sync(begin, options)
        return asyncio.run(run_asyncio(begin, options))

    return follow


@pytest.fixture
def stylize(client_of):
    """Stylise with either client."""

    def stylize(*, timeout=None, request_id=None, **options):
        return client_of(lambda c: c.stream(b"content", b"style", timeout=timeout, request_id=request_id), **options)

    return stylize


@pytest.fixture
def watch(client_of):
    """Watch job-1 with either client."""

    def watch(after_sequence=0, **options):
        return client_of(lambda client: client.watch("job-1", after_sequence=after_sequence), **options)

    return watch


def told(events):
    """The sequences of what the server has told."""
    return [event.sequence for event in events if not isinstance(event, Reconnected)]


def reconnected(events):
    return [event for event in events if isinstance(event, Reconnected)]


def rest(job):
    """Answer WatchJob with what it asks for."""
    return lambda request: [event for event in job if event.sequence > request.after_sequence]


@pytest.mark.parametrize("count", range(KINDS + 1))
def test_a_connection_that_breaks_after_any_event_is_made_good(*, stylize, servicer, script, lost, count):
    job = script.job()
    is_accepted, is_complete = count > 0, count == KINDS
    servicer.attempts = [[*job[:count], lost], *([] if is_accepted else [job])]
    servicer.watch_attempts = [job[count:]]
    done = stylize()
    assert done.result.data == b"the picture"
    assert told(done.events) == [1, 2, 3, 4, 5, 6, 7, 11]
    is_followed = is_accepted and not is_complete
    assert [(event.attempts, event.began_anew) for event in reconnected(done.events)] == [(1, False)] * is_followed
    watches = [pb.WatchJobRequest(job_id="job-1", after_sequence=count)] * is_followed
    assert servicer.watches == watches
    assert len(servicer.requests) == (1 if is_accepted else 2)
    assert len(set(servicer.request_ids)) == 1
    assert len(servicer.request_ids[0]) == 36


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 10])
def test_a_restart_of_the_server_is_made_good(*, stylize, servicer, script, host, count):
    job = script.job()
    servicer.attempts = [[*job[:count], host.restart], job]
    servicer.watch_attempts = [rest(job)] * 2
    done = stylize()
    assert done.result.data == b"the picture"
    assert told(done.events) == [1, 2, 3, 4, 5, 6, 7, 11]
    assert len(set(servicer.request_ids)) == 1


def test_a_server_that_is_away_for_a_while_is_waited_for(*, stylize, servicer, script, host):
    job = script.job()

    def go_and_come_back():
        host.stop()
        threading.Timer(0.5, host.start).start()

    servicer.attempts = [[*job[:5], servicer.cancel_asked.wait]]
    servicer.watch_attempts = [rest(job)]
    threading.Timer(0.3, go_and_come_back).start()
    done = stylize()
    servicer.cancel_asked.set()
    assert done.result.data == b"the picture"
    (event,) = reconnected(done.events)
    assert event.attempts > 1
    assert event.seconds > 0


@pytest.mark.parametrize("code", ["INTERNAL", "UNKNOWN", "CANCELLED"])
def test_every_status_that_a_broken_connection_gives_is_one(*, stylize, servicer, script, failure, code):
    job = script.job()
    lost = failure(grpc.StatusCode[code], "RST_STREAM")
    servicer.attempts = [[lost], [*job[:3], lost]]
    servicer.watch_attempts = [job[3:]]
    assert stylize().result.data == b"the picture"


def test_a_failure_that_the_server_tells_is_final(stylize, servicer, script, failure):
    servicer.attempts = [[script.accepted(), failure(grpc.StatusCode.INTERNAL, "nan", reason="LOSS_NOT_FINITE")]]
    with pytest.raises(InternalError, match="nan"):
        stylize()
    assert servicer.watches == []
    # It has ended: there is nothing to cancel.
    assert servicer.cancelled == []


def test_a_server_that_drains_is_followed_to_its_successor(stylize, servicer, script, failure):
    job = script.job()
    draining = failure(grpc.StatusCode.UNAVAILABLE, reason="DRAINING", retry_after=0.01)
    warming_up = failure(grpc.StatusCode.UNAVAILABLE, reason="WARMING_UP", retry_after=0.01)
    servicer.attempts = [[*job[:5], draining]]
    # More often than a job is sent again that was never accepted.
    servicer.watch_attempts = [[draining], [warming_up], [warming_up], [warming_up], job[5:]]
    done = stylize()
    assert done.result.data == b"the picture"
    assert [event.attempts for event in reconnected(done.events)] == [5]


def test_what_is_told_again_is_not_told_twice(stylize, servicer, script, lost):
    job = script.job()
    servicer.attempts = [[*job[:8], lost]]
    servicer.watch_attempts = [job]
    done = stylize()
    assert told(done.events) == [1, 2, 3, 4, 5, 6, 7, 11]
    assert done.result.data == b"the picture"


def test_a_job_that_goes_on_from_a_checkpoint_tells_it(stylize, servicer, script, lost):
    before = [script.accepted(), script.started(), script.progress(15), lost]
    script.sequence += 100
    after = [script.started(), script.progress(10), script.progress(20), *script.picture()]
    servicer.attempts, servicer.watch_attempts = [before], [after]
    done = stylize()
    kinds = [type(event).__name__ for event in done.events]
    assert kinds == ["Accepted", "Started", "Progress", "Reconnected", "Started", "Progress", "Progress", "Completed"]
    assert [event.iteration for event in done.events if isinstance(event, Progress)] == [15, 10, 20]
    (event,) = reconnected(done.events)
    assert event.sequence == 3


def test_a_job_that_the_server_has_lost_begins_anew_under_the_same_request_id(stylize, servicer, script, lost, no_job):
    before = script.job()[:5]
    script.sequence = 0
    again = [script.accepted("job-2"), script.started(), *script.picture()]
    servicer.attempts = [[*before, lost], again]
    servicer.watch_attempts = [[no_job]]
    done = stylize(request_id="mine")
    assert servicer.request_ids == ["mine", "mine"]
    assert done.result.job_id == "job-2"
    index = next(index for index, event in enumerate(done.events) if isinstance(event, Reconnected))
    event, accepted, started = done.events[index : index + 3]
    assert (event.sequence, event.attempts, event.began_anew) == (0, 2, True)
    assert (accepted.job_id, type(started)) == ("job-2", Started)


def test_a_job_begins_anew_only_once(stylize, servicer, script, lost, no_job):
    servicer.attempts = [[script.accepted(), lost], [script.accepted("job-2"), lost]]
    servicer.watch_attempts = [[no_job], [no_job]]
    with pytest.raises(JobNotFoundError):
        stylize()
    assert len(servicer.requests) == 2


def test_a_break_over_and_over_is_made_good_as_long_as_there_is_news(stylize, servicer, script, lost):
    job = script.job()
    servicer.attempts = [[job[0], lost]]
    servicer.watch_attempts = [[event, lost] for event in job[1:]]
    done = stylize(reconnect_seconds=0.2)
    assert done.result.data == b"the picture"
    assert len(servicer.watches) == KINDS - 1


def test_a_server_that_stays_away_is_given_up_after_a_while(stylize, servicer, script, lost):
    servicer.attempts = [[script.accepted(), lost]]
    servicer.watch_attempts = [[lost]] * 100
    done = stylize(reconnect_seconds=0.3)
    assert "Socket closed" in str(done.error)
    assert [type(event) for event in done.events] == [Accepted]
    assert len(servicer.watches) > 1
    # The server knows how long to wait, and may be asked for the job before.
    assert servicer.cancelled == []


def test_a_client_that_is_told_to_reconnect_never_does_not(stylize, servicer, script, failure):
    servicer.attempts = [[script.accepted(), failure(grpc.StatusCode.CANCELLED, "RST_STREAM")]]
    done = stylize(reconnect_seconds=0)
    # Nobody has cancelled the job: JobCancelledError would be wrong.
    assert done.error.code is grpc.StatusCode.CANCELLED
    assert servicer.watches == []


def test_a_timeout_ends_the_search_for_a_server(stylize, servicer, script, failure):
    servicer.attempts = [[script.accepted(), failure(grpc.StatusCode.UNAVAILABLE, reason="DRAINING", retry_after=30)]]
    done = stylize(timeout=20.0)
    assert done.error.reason == "DRAINING"
    assert servicer.watches == []


def test_the_timeout_goes_with_every_call(stylize, servicer, script, lost):
    job = script.job()
    servicer.attempts, servicer.watch_attempts = [[*job[:3], lost]], [job[3:]]
    stylize(timeout=15.0)
    # On the wire gRPC rounds it up by a few percent.
    assert [0 < remaining < 20 for remaining in servicer.remaining] == [True, True]


def test_a_watched_job_is_followed_over_breaks(watch, servicer, script, lost):
    job = script.job()
    servicer.watch_attempts = [[*job[:5], lost], job[5:]]
    done = watch()
    assert done.result.data == b"the picture"
    assert [request.after_sequence for request in servicer.watches] == [0, 5]
    assert len(reconnected(done.events)) == 1
    assert servicer.requests == []


def test_a_job_can_be_watched_from_any_event_on(watch, servicer, script):
    servicer.watch_attempts = [script.job()[4:]]
    done = watch(after_sequence=4)
    assert servicer.watches == [pb.WatchJobRequest(job_id="job-1", after_sequence=4)]
    assert told(done.events) == [5, 6, 7, 11]
    assert (done.result.job_id, done.result.data) == ("job-1", b"the picture")


def test_a_watched_job_that_is_lost_does_not_begin_anew(watch, servicer, script, lost, no_job):
    servicer.watch_attempts = [[script.accepted(), lost], [no_job]]
    with pytest.raises(JobNotFoundError, match="no such job"):
        watch()
    assert servicer.requests == []


def test_a_watched_job_that_has_failed_ends_as_it_did_then(watch, servicer, script, failure):
    servicer.watch_attempts = [[script.accepted(), failure(grpc.StatusCode.INTERNAL, "nan", reason="LOSS_NOT_FINITE")]]
    with pytest.raises(InternalError) as caught:
        watch()
    assert caught.value.reason == "LOSS_NOT_FINITE"


def test_an_outage_is_told_once_and_when_it_begins(stylize, servicer, script, lost):
    outages, known = [], []

    def answer(events):
        def play(_):
            known.append(len(outages))
            return events

        return play

    job = script.job()
    servicer.attempts = [[*job[:4], lost]]
    servicer.watch_attempts = [answer([lost]), answer([lost]), answer([*job[4:6], lost]), answer(job[6:])]
    done = stylize(on_disconnect=outages.append)
    assert done.result.data == b"the picture"
    # The third answer had news, so that another outage began after it.
    assert known == [1, 1, 1, 2]
    assert outages == [Disconnected(job_id="job-1", message="Socket closed", reconnect_seconds=60.0)] * 2


def test_a_server_that_was_never_there_is_no_outage(stylize, servicer, failure):
    outages = []
    refused = failure(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
    servicer.attempts = [[refused]] * 3
    assert stylize(on_disconnect=outages.append).error is not None
    assert outages == []
