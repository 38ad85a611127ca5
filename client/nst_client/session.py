"""One stylisation from request to result, without a channel and without a clock: all that sync and asyncio share."""

import hashlib

from nst.v1 import style_transfer_pb2 as pb

from nst_client.errors import (
    CorruptResultError,
    NstError,
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    ResultNotReadyError,
    UnavailableError,
)
from nst_client.events import Accepted, Completed, Event
from nst_client.result import Result
from nst_client.translate import event_from_proto

TARGET = "localhost:50051"
"""Where a server listens unless told otherwise."""

RETRIES = 2
"""How often a refused request is sent again unless told otherwise."""

READY_PAUSE = 0.1
"""Seconds between two looks for a server that is not there or breaks the connection."""

GIVEN_UP = "the job was cancelled before it was accepted"
"""Message of the JobCancelledError for a job that the client itself gave up."""

CHANNEL_OPTIONS = (
    # How large a request may be is for the server to answer.
    ("grpc.max_send_message_length", -1),
    # A job may wait long without an event. Servers close a connection that is pinged more often than every five
    # minutes while they have nothing to send.
    ("grpc.keepalive_time_ms", 360_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A retry must find a connection that was really tried again.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
"""Of every channel that the client opens itself."""

_FIRST_BACKOFF = 0.5
"""Seconds before the first retry where the server suggests nothing; doubled each time."""
_LONGEST_WAIT = 60.0
"""Seconds; a server that suggests more is not waited for."""


def retry_delay(error: NstError, *, attempt: int, retries: int, remaining: float | None, jitter: float) -> float | None:
    """Decide whether to send a request again that failed before it was accepted.

    Args:
        error: how it failed.
        attempt: retries so far.
        retries: retries allowed.
        remaining: seconds until the deadline; None without one.
        jitter: random, from 0 to 1, so that many clients do not come back at the same moment.

    Returns:
        Seconds to wait first, or None to give up.
    """
    if attempt >= retries or not isinstance(error, UnavailableError | QueueFullError | QuotaExceededError):
        return None
    if isinstance(error, QuotaExceededError) and error.retry_after is None:
        # A job that is larger than the quota stays so.
        return None
    backoff = min(_FIRST_BACKOFF * 2.0**attempt, _LONGEST_WAIT)
    suggested = error.retry_after
    # Never earlier than the server suggests.
    delay = backoff * (0.5 + jitter / 2) if suggested is None else suggested + backoff * jitter
    if (suggested or 0) > _LONGEST_WAIT or (remaining is not None and delay >= remaining):
        return None
    return delay


class StreamAssembler:
    """Turns the messages of one stream into events and one result, and holds the server to the contract.

    It buffers the picture only, and never more of it than its header announced.
    """

    def __init__(self) -> None:
        self._sequence: int | None = None
        self._accepted: Accepted | None = None
        self._header: pb.ResultHeader | None = None
        self._data = bytearray()
        self._result: Result | None = None

    @property
    def job_id(self) -> str | None:
        """The id of the job; None before it is accepted."""
        return self._accepted.job_id if self._accepted else None

    def feed(self, message: pb.JobEvent) -> Event | None:
        """Take the next message.

        Returns:
            The event; None for a piece of the picture or a kind that this version does not know.

        Raises:
            CorruptResultError: the picture is not the one that was announced.
            ProtocolError: the message cannot come here.
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
                self._accepted = event
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
        if (kind == "accepted") == (self._accepted is not None):
            raise ProtocolError(f"{kind} came {'twice' if self._accepted else 'before accepted'}")
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
        if header is None or self._accepted is None:
            raise ProtocolError("completed came before result_header")
        if len(self._data) != header.size_bytes:
            raise CorruptResultError(f"the picture has {len(self._data)} of the announced {header.size_bytes} bytes")
        sha256 = hashlib.sha256(self._data).hexdigest()
        if sha256 != header.sha256:
            raise CorruptResultError(f"the picture has the SHA-256 {sha256}, announced was {header.sha256}")
        self._result = Result(
            job_id=self._accepted.job_id,
            media_type=header.media_type,
            width=header.width,
            height=header.height,
            sha256=sha256,
            data=bytes(self._data),
            completed=completed,
        )
        self._data.clear()


class Session:
    """A stylisation over all its attempts. Times are readings of one monotonic clock, in seconds."""

    def __init__(self, *, timeout: float | None, retries: int, now: float):
        self._deadline = None if timeout is None else now + timeout
        self._retries = retries
        self._attempt = 0
        self._assembler = StreamAssembler()
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

    def receive(self, response: pb.StylizeResponse) -> Event | None:
        """Take the next message (see `StreamAssembler.feed`)."""
        return self._assembler.feed(response.event)

    def end(self) -> None:
        """Take the end of the stream (see `StreamAssembler.finish`)."""
        self._result = self._assembler.finish()

    def fail(self, error: NstError, *, now: float, jitter: float) -> float:
        """Take the failure of an attempt.

        Returns:
            Seconds to wait before the next attempt.

        Raises:
            NstError: the same error where there is no next attempt.
        """
        delay = None
        if self.job_id is None:
            delay = retry_delay(
                error, attempt=self._attempt, retries=self._retries, remaining=self.remaining(now), jitter=jitter
            )
        if delay is None:
            raise error
        self._attempt += 1
        return delay
