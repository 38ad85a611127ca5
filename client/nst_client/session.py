"""One job from request to result, without a channel and without a clock.

Both clients drive a session: they make the calls that it asks for, and tell it what happens and when.
"""

import hashlib
import math
import re

import grpc
from nst.v1 import style_transfer_pb2 as pb

from nst_client.errors import (
    CorruptResultError,
    InvalidRequestError,
    JobCancelledError,
    JobNotFoundError,
    NstError,
    PictureNotFoundError,
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    ResultNotReadyError,
    StoreError,
    UnavailableError,
)
from nst_client.events import Accepted, Completed, Disconnected, Event, Reconnected
from nst_client.result import Result
from nst_client.translate import event_from_proto
from nst_client.uploads import Upload

TARGET = "localhost:50051"
"""The default target, where a server listens by default."""

RETRIES = 2
"""The default number of times that a refused request is sent again."""

RECONNECT_SECONDS = 60.0
"""The default number of seconds for which the client looks for a lost server."""

READY_PAUSE = 0.1
"""Seconds between two attempts to find a server that is not there or breaks the connection."""

FAREWELL_SECONDS = 2.0
"""Seconds that the server gets to confirm that it ends a job that nobody reads any more. Without an answer, the job
ends later by itself."""

QUESTION_SECONDS = 30.0
"""Seconds for a call that shall only tell why another one failed."""

CHANNEL_OPTIONS = (
    # The server decides how large a request may be.
    ("grpc.max_send_message_length", -1),
    # A job may wait long without an event. Servers close a connection that is pinged more often than every five
    # minutes while they have nothing to send.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A retry needs a connection that was really tried again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
"""The arguments of every channel that the client opens itself."""

_FIRST_BACKOFF = 0.5
"""Seconds before the first retry if the server suggests none. They double with each retry."""
_LONGEST_WAIT = 60.0
"""The longest suggestion of a server that the client follows, in seconds."""

_LONGEST_BACKOFF = 8.0
"""The most seconds between two attempts to find a lost server."""
_LEAST_BACKOFF = 0.05
"""The fewest seconds between two attempts, so that no random draw makes a busy loop."""
_LONGEST_TIMEOUT = 10 * 365 * 86400.0
"""Seconds above which a timeout is none. gRPC takes much longer ones, and infinity, for a time in the past."""
_STEADY_SECONDS = 30.0
"""Seconds after which a call certainly had reached the server, even without an event. An attempt to connect fails
earlier."""

_BROKEN = frozenset({grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL})
"""The statuses, besides UNAVAILABLE, that gRPC itself creates for a call whose connection breaks."""

_NEVER_CONNECTED = re.compile(r"failed to connect|resolution|resolving", re.IGNORECASE)
"""Messages of gRPC for a call that never had a connection. If gRPC words it otherwise, the client only looks for the
server for longer."""

_PAGE = re.compile("Data frame with END_STREAM")
"""The message of gRPC for a call that a page ended before its HTTP status was noticed."""


def finite_timeout(timeout: float | None) -> float | None:
    """Return a timeout that gRPC can count; None if there is none, or one that nobody lives to see.

    Raises:
        InvalidRequestError: the timeout is not a number.
    """
    if timeout is None or timeout > _LONGEST_TIMEOUT:
        return None
    if math.isnan(timeout):
        raise InvalidRequestError.of("timeout", "is nan, accepted are a number of seconds and None")
    return timeout


def is_lost(error: NstError) -> bool:
    """Return whether a call failed because the server is lost: the connection broke, or the server postpones its jobs.

    A status from the server itself has details. A status that gRPC creates has none.
    """
    return error.code is grpc.StatusCode.UNAVAILABLE or (not _has_details(error) and error.code in _BROKEN)


def is_refusal(error: NstError) -> bool:
    """Return whether a call certainly started no job: the server refused it, or there was no connection."""
    return _has_details(error) or _NEVER_CONNECTED.search(error.message) is not None


def is_page(error: NstError) -> bool:
    """Return whether a call may have been answered with a page instead of a gRPC status.

    A page ends with its data, a gRPC status with trailers. gRPC tells the HTTP status of a page reliably only for calls
    with one response.
    """
    return (
        error.code is grpc.StatusCode.INTERNAL and not _has_details(error) and _PAGE.search(error.message) is not None
    )


def _has_details(error: NstError) -> bool:
    return error.status is not None and len(error.status.details) > 0


def reconnect_delay(
    error: NstError, *, attempt: int, lost_seconds: float, budget: float, remaining: float | None, jitter: float
) -> float | None:
    """Decide whether to look again for a server that was lost.

    Args:
        error: the error of the last attempt.
        attempt: the number of attempts so far.
        lost_seconds: seconds since the server was lost.
        budget: seconds after which to give up.
        remaining: seconds until the deadline; None without one.
        jitter: a random number from 0 to 1, so that many clients do not come back at the same moment.

    Returns:
        The seconds to wait first, or None to give up.
    """
    left = budget - lost_seconds
    suggested = error.retry_after or 0.0
    if left <= 0 or suggested > left:
        return None
    backoff = max(_LEAST_BACKOFF, min(_FIRST_BACKOFF * 2.0**attempt, _LONGEST_BACKOFF) * jitter)
    # The last attempt is made at the end of the time, not before.
    delay = min(suggested + backoff, left)
    return None if remaining is not None and delay >= remaining else delay


def retry_delay(error: NstError, *, attempt: int, retries: int, remaining: float | None, jitter: float) -> float | None:
    """Decide whether to send a request again that failed before it was accepted.

    Args:
        error: the error of the last attempt.
        attempt: the number of retries so far.
        retries: the number of retries that are allowed.
        remaining: seconds until the deadline; None without one.
        jitter: a random number from 0 to 1, so that many clients do not come back at the same moment.

    Returns:
        The seconds to wait first, or None to give up.
    """
    if attempt >= retries or not isinstance(error, UnavailableError | QueueFullError | QuotaExceededError | StoreError):
        return None
    if isinstance(error, QuotaExceededError | StoreError) and error.retry_after is None:
        # A job that is larger than the quota stays larger, and a store that somebody has to repair stays broken.
        return None
    backoff = min(_FIRST_BACKOFF * 2.0**attempt, _LONGEST_WAIT)
    suggested = error.retry_after
    # Never earlier than the server suggests.
    delay = backoff * (0.5 + jitter / 2) if suggested is None else suggested + backoff * jitter
    if (suggested or 0) > _LONGEST_WAIT or (remaining is not None and delay >= remaining):
        return None
    return delay


class StreamAssembler:
    """Turns the messages about one job into events and one result, and checks them against the contract.

    It buffers nothing but the picture, and never more bytes than its header announced.
    """

    def __init__(self, *, job_id: str | None = None, after_sequence: int | None = None):
        """Prepare for a new job, or for a known one.

        Args:
            job_id: the id of the job; None if Accepted is to come first.
            after_sequence: the number of the event after which the messages begin; None for all messages.
        """
        self._job_id = job_id
        self._sequence = after_sequence
        self._is_accepted = False
        self._header: pb.ResultHeader | None = None
        self._data = bytearray()
        self._result: Result | None = None

    @property
    def job_id(self) -> str | None:
        """The id of the job; None before it is accepted."""
        return self._job_id

    @property
    def sequence(self) -> int | None:
        """The number of the last message; None before the first one."""
        return self._sequence

    @property
    def is_complete(self) -> bool:
        """Whether the result is complete, so that nothing else may come."""
        return self._result is not None

    def feed(self, message: pb.JobEvent) -> Event | None:
        """Process the next message.

        Returns:
            The event; None for a part of the picture and for a kind that this version does not know.

        Raises:
            CorruptResultError: the picture is not the one that was announced.
            ProtocolError: the contract does not allow the message at this point.
        """
        kind = message.WhichOneof("event")
        if kind is None:
            return None
        self._check_order(kind, message.sequence)
        if kind == "result_header":
            self._begin(message.result_header)
        elif kind == "result_chunk":
            self._append(message.result_chunk)
        event = event_from_proto(message)
        match event:
            case Accepted():
                self._is_accepted, self._job_id = True, event.job_id
            case Completed():
                self._complete(event)
        return event

    def finish(self) -> Result:
        """Return the result after the stream has ended.

        Raises:
            ProtocolError: the stream ended without a completed job.
        """
        if self._result is None:
            raise ProtocolError("the stream ended before the job was completed")
        return self._result

    def _check_order(self, kind: str, sequence: int) -> None:
        if self._sequence is not None and sequence <= self._sequence:
            raise ProtocolError(f"{kind} has sequence {sequence}, which does not come after {self._sequence}")
        self._sequence = sequence
        if kind == "accepted" and self._is_accepted:
            raise ProtocolError("accepted came twice")
        if kind != "accepted" and self._job_id is None:
            raise ProtocolError(f"{kind} came before accepted")
        if self._result is not None:
            raise ProtocolError(f"{kind} came after completed")

    def _begin(self, header: pb.ResultHeader) -> None:
        if self._header is not None:
            raise ProtocolError("result_header came twice")
        if header.size_bytes <= 0:
            raise ProtocolError(f"result_header announces a picture of {header.size_bytes} bytes")
        self._header = header

    def _append(self, chunk: pb.ResultChunk) -> None:
        if self._header is None:
            raise ProtocolError("result_chunk came before result_header")
        if chunk.offset != len(self._data):
            raise CorruptResultError(f"a chunk starts at byte {chunk.offset}, expected was byte {len(self._data)}")
        if chunk.offset + len(chunk.data) > self._header.size_bytes:
            raise CorruptResultError(f"the picture has more than the announced {self._header.size_bytes} bytes")
        self._data += chunk.data

    def _complete(self, completed: Completed) -> None:
        header = self._header
        if header is None or self._job_id is None:
            raise ProtocolError("completed came before result_header")
        if len(self._data) != header.size_bytes:
            raise CorruptResultError(f"the picture has {len(self._data)} of the announced {header.size_bytes} bytes")
        sha256 = hashlib.sha256(self._data).hexdigest()
        if sha256 != header.sha256:
            raise CorruptResultError(f"the picture has the SHA-256 {sha256}, announced was {header.sha256}")
        self._result = Result(
            job_id=self._job_id,
            media_type=header.media_type,
            width=header.width,
            height=header.height,
            sha256=sha256,
            data=bytes(self._data),
            completed=completed,
        )
        self._data.clear()


class Session:
    """A job over all the calls that start and follow it. Times are readings of one monotonic clock, in seconds.

    After a lost connection, the job is followed again from the event after the last one. If the server has kept nothing
    of the job, it is started once more.
    """

    def __init__(
        self,
        opening: Upload | pb.WatchJobRequest,
        *,
        keep_running: bool,
        timeout: float | None,
        retries: int,
        reconnect_seconds: float,
        now: float,
    ):
        """Begin with the request of a new job, or with a request to watch a job.

        Args:
            opening: the request.
            keep_running: whether the job continues when nobody reads its events any more.
            timeout: seconds for everything; None for no limit.
            retries: the number of retries if the server refuses the request or is not there from the beginning.
            reconnect_seconds: seconds to look for a server that was lost; 0 to give up at once.
            now: the current time.
        """
        self._opening = opening
        self._upload: Upload | None = None
        self._assembler = StreamAssembler()
        if isinstance(opening, Upload):
            self._upload = opening
        else:
            self._assembler = StreamAssembler(
                job_id=opening.job_id or None, after_sequence=opening.after_sequence or None
            )
        self._keep_running = keep_running
        timeout = finite_timeout(timeout)
        self._deadline = None if timeout is None else now + timeout
        self._retries = retries
        self._retried = 0
        self._reconnect_seconds = reconnect_seconds
        self._opened = now
        """The time when the current call began."""
        self._lost: float | None = None
        """The time when the server was lost; None while it is there."""
        self._attempts = 0
        """The number of attempts to find it since then."""
        self._outage: Disconnected | None = None
        """The outage that the reader does not know of yet."""
        self._has_events = False
        """Whether there were events of this job."""
        self._has_reported_events = False
        """Whether the reader got an event of any job, and would therefore notice the loss."""
        self._has_restarted = False
        """Whether the job was started once more."""
        self._restart_unreported = False
        """Whether the job was started once more and the reader does not know it yet."""
        self._has_asked = False
        """Whether the server was asked what was wrong with the request."""
        self._is_open = False
        """Whether the last call may have started a job that nobody knows of yet."""
        self._is_over = False
        self._result: Result | None = None

    @property
    def job_id(self) -> str | None:
        """The id of the job; None before it is accepted."""
        return self._assembler.job_id

    @property
    def result(self) -> Result:
        """The result.

        Raises:
            ResultNotReadyError: the events are not exhausted, or they ended with an error.
        """
        if self._result is None:
            raise ResultNotReadyError("there is no result before the events are exhausted")
        return self._result

    def remaining(self, now: float) -> float | None:
        """Return the seconds until the deadline, at least 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - now)

    def next_request(self, now: float) -> pb.StylizeRequest | pb.WatchJobRequest:
        """Return the request of the call that begins now. The first time, this reads files.

        Raises:
            InvalidRequestError: the request cannot be built.
        """
        self._opened = now
        if self.job_id is not None:
            return pb.WatchJobRequest(job_id=self.job_id, after_sequence=self._assembler.sequence or 0)
        request = self._opening.message() if isinstance(self._opening, Upload) else self._opening
        self._is_open = True
        return request

    def receive(self, message: pb.JobEvent, *, now: float) -> list[Event]:
        """Process the next message (see `StreamAssembler.feed`) and return the events for the reader."""
        last = self._assembler.sequence
        is_repeated = last is not None and message.sequence <= last
        if is_repeated or message.WhichOneof("event") is None:
            return []
        event = self._assembler.feed(message)
        if isinstance(event, Accepted) and self._upload is not None:
            self._upload.accepted()
        events: list[Event] = []
        if self._lost is not None and self._has_reported_events:
            events.append(
                Reconnected(
                    sequence=last or 0,
                    attempts=self._attempts,
                    seconds=now - self._lost,
                    began_anew=self._restart_unreported,
                )
            )
        # Only news proves that the job continues: a server may answer and then break at the same point again.
        self._lost, self._restart_unreported, self._has_events = None, False, True
        if event is not None:
            events.append(event)
            self._has_reported_events = True
        return events

    def end(self) -> None:
        """Process the end of the stream (see `StreamAssembler.finish`)."""
        self._result = self._assembler.finish()
        self._is_over = True

    def fail(self, error: NstError, *, now: float, jitter: float) -> float | None:
        """Process the failure of a call.

        Returns:
            The seconds to wait before the next call; None if the result is complete, so that no other call is needed.

        Raises:
            NstError: the error, if there is neither a result nor a next call.
        """
        if self._assembler.is_complete:
            self.end()
            return None
        self._is_open = not is_refusal(error)
        delay = self._delay(error, now, jitter)
        if delay is not None:
            return delay
        # The job has ended, or the server stays lost.
        self._is_over = True
        raise error

    def question(self, error: NstError) -> pb.EstimateRequest | None:
        """Return the request of a call with one response that may tell more about a failure; None if none can.

        Args:
            error: the failure of the call that should have started the job.
        """
        if self._has_asked or self._upload is None or self.job_id is not None or not is_page(error):
            return None
        self._has_asked = True
        return pb.EstimateRequest(stylize=self._upload.message())

    def take_outage(self) -> Disconnected | None:
        """Return the outage that began with the last failure; None if none did, or it was taken before."""
        outage, self._outage = self._outage, None
        return outage

    def abandon(self, *, ending: bool = False) -> pb.CancelJobRequest | None:
        """Note that nobody reads the events any more.

        Args:
            ending: whether to end even a job that was started with `keep_running`.

        Returns:
            The request that cancels the job; None if there is no job, it has ended, or it shall continue.
        """
        has_no_job_to_end = self._is_over or (self._keep_running and not ending)
        self._is_over = True
        if has_no_job_to_end:
            return None
        if self.job_id is not None:
            return pb.CancelJobRequest(job_id=self.job_id)
        # The request may have been accepted without the client knowing it yet.
        request_id = self._opening.request_id
        return pb.CancelJobRequest(request_id=request_id) if self._is_open and request_id else None

    def given_up(self) -> JobCancelledError:
        """Return the error for a reader whose job the client has given up."""
        if self.job_id is None:
            return JobCancelledError("the job was cancelled before it was accepted")
        return JobCancelledError(f"the client no longer follows the job {self.job_id}")

    def _delay(self, error: NstError, now: float, jitter: float) -> float | None:
        if isinstance(error, PictureNotFoundError) and self._upload is not None and self._upload.restore():
            return 0.0
        if isinstance(error, JobNotFoundError) and self._restart(now):
            return 0.0
        remaining = self.remaining(now)
        has_contact = self._has_events or self._lost is not None
        if self._reconnect_seconds > 0 and is_lost(error) and (has_contact or not is_refusal(error)):
            begins = self._lost is None
            if self._lost is None or now - self._opened >= _STEADY_SECONDS:
                self._lost, self._attempts = now, 0
            delay = reconnect_delay(
                error,
                attempt=self._attempts,
                lost_seconds=now - self._lost,
                budget=self._reconnect_seconds,
                remaining=remaining,
                jitter=jitter,
            )
            self._attempts += 1
            if begins and delay is not None:
                self._outage = Disconnected(
                    job_id=self.job_id, message=error.message, reconnect_seconds=self._reconnect_seconds
                )
            return delay
        if self._has_events:
            return None
        delay = retry_delay(error, attempt=self._retried, retries=self._retries, remaining=remaining, jitter=jitter)
        self._retried += 1
        return delay

    def _restart(self, now: float) -> bool:
        """Forget the job that the server has forgotten. This happens only once: the job may be what crashes it."""
        if self._upload is None or self.job_id is None or self._has_restarted:
            return False
        self._has_restarted = self._restart_unreported = True
        self._lost = now if self._lost is None else self._lost
        self._attempts += 1
        # The server will not have the pictures either.
        self._upload.restore()
        self._assembler = StreamAssembler()
        self._has_events = False
        return True
