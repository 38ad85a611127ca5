"""The client for programs with asyncio. `client.py` is generated from this module."""

import contextlib
import random
import time
import uuid
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_client.errors import (
    ConnectionOptionsError,
    NstError,
    PictureNotFoundError,
    ProtocolError,
    RequestTooLargeError,
    UnavailableError,
    UnsupportedError,
    from_rpc_error,
    rpc_errors,
)
from nst_client.events import Accepted, Disconnected, Estimate, Event
from nst_client.fields import EstimateFields, StylizeFields, SubmitFields, check_fields, spell_out
from nst_client.info import Health, Job, JobState, ServerInfo
from nst_client.options import Picture, Styles
from nst_client.result import Result
from nst_client.security import Tls, channel_settings
from nst_client.session import (
    FAREWELL_SECONDS,
    QUESTION_SECONDS,
    READY_PAUSE,
    RECONNECT_SECONDS,
    RETRIES,
    TARGET,
    Session,
    finite_timeout,
)
from nst_client.translate import (
    estimate_from_proto,
    info_from_proto,
    job_from_proto,
    known_enum_from_proto,
    list_to_proto,
    one_id,
    request_to_proto,
    watch_to_proto,
)
from nst_client.transport.aio import (
    Call,
    Channel,
    ChannelClosedError,
    Farewell,
    Lock,
    Signal,
    call_unary,
    open_channel,
    open_early,
    run_all,
    run_blocking,
    sleep,
)
from nst_client.uploads import SentPictures, Upload


class AsyncStylization(AsyncIterator[Event]):
    """The iterator of the events of one job. Once they are exhausted, `result` is the picture.

    The client reconnects by itself after a lost connection or a restart of the server. The event `Reconnected` tells of
    that afterwards, and `on_disconnect` of the client when the connection is lost.

    Leaving it as an asynchronous context manager, or closing it, ends the job if it still runs, unless it was started
    with `keep_running` or is only watched. A job whose iterator is dropped without either ends by itself after
    `Limits.reattach_seconds`.

    Cancelling the task that waits for the next event ends the job in the same way.
    """

    def __init__(
        self,
        stub: "pb_grpc.StyleTransferServiceAsyncStub",
        session: Session,
        on_disconnect: Callable[[Disconnected], object] | None = None,
    ):
        """Prepare the iterator. Programs get it from `AsyncStyleTransferClient.stream` or `watch`."""
        self._stub = stub
        self._session = session
        self._on_disconnect = on_disconnect
        self._call: Call | None = None
        self._size = 0
        """The size of the request of the call in bytes."""
        self._lock = Lock()
        """The guard of the call, which the reader may replace while somebody else cancels it."""
        self._events: deque[Event] = deque()
        """The events that have arrived and that nobody has asked for yet."""
        self._ended = False
        self._given_up = Signal()
        self._farewell = Farewell()
        open_early(self._open)

    @property
    def job_id(self) -> str | None:
        """The id of the job; None before it is accepted."""
        return self._session.job_id

    @property
    def result(self) -> Result:
        """The finished picture.

        Raises:
            ResultNotReadyError: the events are not exhausted, or they ended with an error.
        """
        return self._session.result

    async def cancel(self, *, timeout: float | None = None) -> JobState | None:
        """Ask the server to end the job. Continue to iterate for the best picture so far.

        This also ends a job that was started with `keep_running` or is only watched. It may be called while somebody
        else waits for the next event.

        Args:
            timeout: seconds that the server gets to answer.

        Returns:
            The state of the job before. None for a job that was not accepted yet: its request is given up, and there
            is no picture.

        Raises:
            NstError: the server could not be asked; see `nst_client.errors` for each kind.
        """
        job_id = self.job_id
        if job_id is None:
            await self._leave(ending=True)
            return None
        return await _cancel(self._stub, pb.CancelJobRequest(job_id=job_id), timeout)

    async def close(self) -> None:
        """End the call, and with it a running job that was not started with `keep_running`. No more events follow."""
        self._ended = True
        await self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event.

        Raises:
            StopAsyncIteration: the result is there.
            NstError: see `nst_client.errors` for each kind.
        """
        try:
            while not self._events and not self._ended:
                self._events.extend(await self._receive())
        except BaseException:
            await self.close()
            raise
        if self._ended:
            raise StopAsyncIteration
        return self._events.popleft()

    async def _receive(self) -> Iterable[Event]:
        """Take one response or the end of the call, and open the next call where one is needed."""
        call = self._call or await self._open()
        try:
            response = await call.read()
        except grpc.RpcError as error:
            if self._given_up.is_set():
                raise self._session.given_up() from error
            failure = await self._explained(from_rpc_error(error, size=self._size))
            delay = self._session.fail(failure, now=time.monotonic(), jitter=random.random())
            if delay is not None:
                outage = self._session.take_outage()
                if outage is not None and self._on_disconnect is not None:
                    self._on_disconnect(outage)
                await self._given_up.wait_for(delay)
                await self._open()
                return ()
        else:
            if response is not None:
                return self._session.receive(response.event, now=time.monotonic())
            self._session.end()
        self._ended = True
        return ()

    async def _explained(self, failure: NstError) -> NstError:
        """Return what a call with one response tells about a failure, or the failure itself."""
        question = self._session.question(failure)
        if question is not None:
            remaining = self._session.remaining(time.monotonic())
            limit = QUESTION_SECONDS if remaining is None else min(QUESTION_SECONDS, remaining)
            try:
                await _call(self._stub.Estimate, question, limit)
            except (RequestTooLargeError, UnsupportedError) as answer:
                return answer
            except NstError:
                pass
        return failure

    async def _open(self) -> Call:
        request = await run_blocking(self._session.next_request, time.monotonic())
        method: Any = self._stub.WatchJob if isinstance(request, pb.WatchJobRequest) else self._stub.Stylize
        with self._lock:
            if self._given_up.is_set():
                raise self._session.given_up()
            self._size = request.ByteSize()
            call = self._call = Call(method(request, timeout=self._session.remaining(time.monotonic())))
        return call

    async def _leave(self, *, ending: bool = False) -> None:
        """End the call, and tell a server that would wait for another one."""
        with self._lock:
            self._given_up.set()
            if self._call is not None:
                self._call.cancel()
        await self._farewell.say(partial(self._session.abandon, ending=ending), self._cancel_quietly)

    async def _cancel_quietly(self, request: pb.CancelJobRequest) -> None:
        # After its channel was closed, the server cannot be told.
        with contextlib.suppress(NstError, ChannelClosedError):
            await _cancel(self._stub, request, FAREWELL_SECONDS)


class AsyncSubmittedJob:
    """A job that a server has accepted. It continues by itself, whether anybody follows it or not.

    `AsyncStyleTransferClient.submit` returns it. It makes its calls through that client.
    """

    def __init__(self, client: "AsyncStyleTransferClient", accepted: Accepted):
        """Prepare for the calls. Programs get it from `AsyncStyleTransferClient.submit`."""
        self._client = client
        self.accepted = accepted
        """The event `Accepted`: the options with every default filled in, and the expected cost."""

    @property
    def job_id(self) -> str:
        """The id of the job, with which every client finds it again."""
        return self.accepted.job_id

    def events(self, *, after_sequence: int | None = None, timeout: float | None = None) -> AsyncStylization:
        """Follow the job and return the iterator of its events, with its result at the end. Closing it leaves the job.

        Args:
            after_sequence: the `sequence` of the last event that is not wanted again. Default: that of `accepted`.
            timeout: seconds for everything; the job continues after them.
        """
        sequence = self.accepted.sequence if after_sequence is None else after_sequence
        return self._client.watch(self.job_id, after_sequence=sequence, timeout=timeout)

    async def result(
        self, *, timeout: float | None = None, on_event: Callable[[Event], object] | None = None
    ) -> Result:
        """Wait for the picture.

        Args:
            timeout: seconds to wait at the most; the job continues after them.
            on_event: called with each event as it happens.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        return await self._client.result(self.job_id, timeout=timeout, on_event=on_event)

    async def get(self, *, timeout: float | None = None) -> Job:
        """Return the state of the job.

        Args:
            timeout: seconds that the server gets to answer.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        return await self._client.get(self.job_id, timeout=timeout)

    async def cancel(self, *, timeout: float | None = None) -> JobState:
        """Cancel the job. `result` then returns the best picture so far, or raises JobCancelledError if there is none.

        Args:
            timeout: seconds that the server gets to answer.

        Returns:
            The state of the job before. A job that has already ended stays as it is.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        return await self._client.cancel(self.job_id, timeout=timeout)


class AsyncStyleTransferClient:
    """A client of one server, for one event loop. As an asynchronous context manager it closes itself."""

    def __init__(
        self,
        target: str = TARGET,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        channel: Channel | None = None,
        retries: int = RETRIES,
        reconnect_seconds: float = RECONNECT_SECONDS,
        on_disconnect: Callable[[Disconnected], object] | None = None,
    ):
        """Open a channel; it connects with the first call.

        Args:
            target: host and port of the server, or any other gRPC target.
            tls: how to encrypt the channel. Default: it is not encrypted.
            token: the bearer token that is sent with every call. It never travels unencrypted to another machine.
            credentials: credentials of gRPC that replace `tls`.
            channel: the channel to use; it stays open when the client is closed. Default: a new one to `target`.
            retries: number of times to send a request again that was refused before it was accepted, because there was
                no server, it was not ready or its queue was full. Each retry waits as long as the server suggests (up
                to a minute), and never past the timeout of the call.
            reconnect_seconds: seconds to look for a server that was lost while it worked on a job, in growing intervals
                and as the server suggests; the same job then continues. They count from the last news of the job, or
                from the end of a connection that held for half a minute. With 0, such a job ends with
                UnavailableError.
            on_disconnect: called when such a server is lost, before the client looks for it.

        Raises:
            ConnectionOptionsError: the options contradict each other, name a file that cannot be read, or would send
                the token over a network without encryption.
        """
        self._owned: Channel | None = None
        if channel is None:
            settings = channel_settings(target, tls=tls, token=token, credentials=credentials)
            self._owned = channel = open_channel(target, settings)
        elif tls is not None or token is not None or credentials is not None:
            raise ConnectionOptionsError("tls, token and credentials are for channels that the client opens itself")
        self._stub = pb_grpc.StyleTransferServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._retries = retries
        self._reconnect_seconds = reconnect_seconds
        self._on_disconnect = on_disconnect
        self._sent = SentPictures()
        self._streams: weakref.WeakSet[AsyncStylization] = weakref.WeakSet()
        self._lock = Lock()
        """The guard of the streams."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every stylization (see `AsyncStylization.close`), and the channel if the client opened it."""
        with self._lock:
            streams = list(self._streams)
        await run_all(stream._leave for stream in streams)
        if self._owned:
            await self._owned.close()

    @spell_out(StylizeFields)
    async def stylize(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **fields: Unpack[StylizeFields],
    ) -> Result:
        """Stylise a picture and wait for the result.

        Args:
            content: the picture whose content is kept.
            styles: the style, or several that are blended.
            timeout: seconds for everything, including retries and the queue. The server refuses a job that cannot
                finish in time, and ends a job early that turns out slower than expected.
            on_event: called with each event as it happens.
            **fields: further fields of the request (see `StylizeFields`).

        Raises:
            NstError: see `nst_client.errors` for each kind.
            TypeError: there is no such field.
        """
        check_fields(self.stylize, fields)
        async with self.stream(content, styles, timeout=timeout, **fields) as events:
            return await _result_of(events, on_event)

    @spell_out(StylizeFields)
    def stream(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[StylizeFields],
    ) -> AsyncStylization:
        """Stylise a picture and return the iterator of its events.

        Files are read, and the job starts, when the first event is awaited.

        Args:
            content: see `stylize`.
            styles: see `stylize`.
            timeout: see `stylize`.
            **fields: further fields of the request (see `StylizeFields`).

        Raises:
            InvalidRequestError: a file cannot be read, or a value has a wrong type.
            TypeError: there is no such field.
        """
        check_fields(self.stream, fields)
        if fields.get("request_id") is None:
            fields["request_id"] = str(uuid.uuid4())
        build = partial(request_to_proto, content, styles, **fields)
        return self._follow(Upload(build, self._sent), keep_running=fields.get("keep_running", False), timeout=timeout)

    @spell_out(SubmitFields)
    async def submit(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[SubmitFields],
    ) -> AsyncSubmittedJob:
        """Start a job that continues by itself, and return it as soon as the server has accepted it.

        Args:
            content: see `stylize`.
            styles: see `stylize`.
            timeout: seconds until the server has accepted the job. They do not limit the job itself.
            **fields: further fields of the request (see `SubmitFields`).

        Raises:
            NstError: see `nst_client.errors` for each kind.
            TypeError: there is no such field.
        """
        check_fields(self.submit, fields)
        async with self.stream(content, styles, timeout=timeout, keep_running=True, **fields) as events:
            async for event in events:
                if isinstance(event, Accepted):
                    return AsyncSubmittedJob(self, event)
        raise ProtocolError("the events ended without Accepted")

    async def result(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
    ) -> Result:
        """Wait for the picture of a job, whoever started it.

        Args:
            job_id: the id from `Accepted`.
            request_id: the id of the request, in place of `job_id`.
            timeout: seconds to wait at the most; the job continues after them.
            on_event: called with each event, from the first one on.

        Raises:
            InvalidRequestError: not exactly one id is given.
            JobNotFoundError: there is no such job.
            NstError: see `nst_client.errors` for each kind.
        """
        async with self.watch(job_id, request_id=request_id, timeout=timeout) as events:
            return await _result_of(events, on_event)

    def watch(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        after_sequence: int = 0,
        timeout: float | None = None,
    ) -> AsyncStylization:
        """Follow a job and return the iterator of its events, with its result at the end. Closing it leaves the job.

        The events end with JobNotFoundError if there is no such job, and like those of `stream` if the job fails.

        Args:
            job_id: the id from `Accepted`.
            request_id: the id of the request, in place of `job_id`.
            after_sequence: the `sequence` of the last event that is not wanted again, other than `Completed`; 0 for
                all events. Events that are outdated by now are left out. It needs a `job_id`.
            timeout: seconds for everything; the job continues after them.

        Raises:
            InvalidRequestError: not exactly one id is given, or `after_sequence` is given without a `job_id`.
        """
        request = watch_to_proto(job_id, request_id, after_sequence)
        return self._follow(request, keep_running=True, timeout=timeout)

    def _follow(
        self, opening: Upload | pb.WatchJobRequest, *, keep_running: bool, timeout: float | None
    ) -> AsyncStylization:
        session = Session(
            opening,
            keep_running=keep_running,
            timeout=timeout,
            retries=self._retries,
            reconnect_seconds=self._reconnect_seconds,
            now=time.monotonic(),
        )
        stream = AsyncStylization(self._stub, session, self._on_disconnect)
        with self._lock:
            self._streams.add(stream)
        return stream

    async def get(
        self, job_id: str | None = None, *, request_id: str | None = None, timeout: float | None = None
    ) -> Job:
        """Return the state of a job.

        Args:
            job_id: the id from `Accepted`.
            request_id: the id of the request, in place of `job_id`.
            timeout: seconds that the server gets to answer.

        Raises:
            InvalidRequestError: not exactly one id is given.
            JobNotFoundError: there is no such job.
            NstError: see `nst_client.errors` for each kind.
        """
        request = pb.GetJobRequest(**one_id(job_id, request_id))
        response = await _call(self._stub.GetJob, request, timeout)
        return job_from_proto(response.job)

    async def list_jobs(
        self, states: Iterable[JobState] = (), *, page_size: int | None = None, timeout: float | None = None
    ) -> AsyncIterator[Job]:
        """Yield the caller's jobs, newest first. Each page is fetched when its first job is asked for.

        Args:
            states: the states whose jobs are listed; empty for all jobs.
            page_size: jobs of one page, 1 to 1000. Default: the server chooses.
            timeout: seconds that the server gets to answer with each page.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        request = list_to_proto(states, page_size)
        while True:
            page = await _call(self._stub.ListJobs, request, timeout)
            for job in page.jobs:
                yield job_from_proto(job)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @spell_out(EstimateFields)
    async def estimate(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[EstimateFields],
    ) -> Estimate:
        """Return what a stylisation would do and cost, without doing it.

        Args:
            content: see `stylize`.
            styles: see `stylize`.
            timeout: seconds that the server gets to answer.
            **fields: further fields of the request (see `EstimateFields`).

        Raises:
            NstError: see `nst_client.errors` for each kind.
            TypeError: there is no such field.
        """
        check_fields(self.estimate, fields)
        upload = Upload(partial(request_to_proto, content, styles, **fields), self._sent)
        while True:
            request = pb.EstimateRequest(stylize=await run_blocking(upload.message))
            try:
                return estimate_from_proto(await _call(self._stub.Estimate, request, timeout))
            except PictureNotFoundError:
                if not upload.restore():
                    raise

    async def cancel(
        self, job_id: str | None = None, *, request_id: str | None = None, timeout: float | None = None
    ) -> JobState:
        """Cancel a job. Its stream ends with the best picture so far, or with JobCancelledError if there is none.

        Args:
            job_id: the id from `Accepted`.
            request_id: the id of the request, in place of `job_id`.
            timeout: seconds that the server gets to answer.

        Returns:
            The state of the job before. A job that has already ended stays as it is.

        Raises:
            InvalidRequestError: not exactly one id is given.
            JobNotFoundError: there is no such job.
            NstError: see `nst_client.errors` for each kind.
        """
        return await _cancel(self._stub, pb.CancelJobRequest(**one_id(job_id, request_id)), timeout)

    async def info(self, *, timeout: float | None = None) -> ServerInfo:
        """Return the server's description of itself, including every default and limit.

        Args:
            timeout: seconds that the server gets to answer.

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        return info_from_proto(await _call(self._stub.GetServerInfo, pb.GetServerInfoRequest(), timeout))

    async def health(self, *, timeout: float | None = None) -> Health:
        """Return whether the server accepts jobs.

        Args:
            timeout: seconds that the server gets to answer.

        Raises:
            UnavailableError: there is no server.
            NstError: see `nst_client.errors` for each kind.
        """
        response = await _call(self._health.Check, health_pb2.HealthCheckRequest(), timeout)
        return known_enum_from_proto(Health, response.status)

    async def wait_until_ready(self, timeout: float) -> None:
        """Wait until there is a server and it accepts jobs.

        Args:
            timeout: seconds to wait at the most.

        Raises:
            DeadlineExceededError: it took longer.
            NstError: see `nst_client.errors` for each kind.
        """
        deadline = time.monotonic() + timeout
        while not await self._becomes_ready(max(0.0, deadline - time.monotonic())):
            await sleep(READY_PAUSE)

    async def _becomes_ready(self, timeout: float) -> bool:
        """Wait until the server accepts jobs, or the connection to it breaks."""
        request = health_pb2.HealthCheckRequest()
        watch = Call(self._health.Watch(request, timeout=finite_timeout(timeout), wait_for_ready=True))
        try:
            with rpc_errors():
                while (response := await watch.read()) is not None:
                    if known_enum_from_proto(Health, response.status) is Health.SERVING:
                        return True
        except UnavailableError:
            pass
        finally:
            watch.cancel()
        return False


async def _result_of(events: AsyncStylization, on_event: Callable[[Event], object] | None) -> Result:
    """Exhaust the events of a job and return its picture."""
    async for event in events:
        if on_event:
            on_event(event)
    return events.result


async def _cancel(
    stub: "pb_grpc.StyleTransferServiceAsyncStub", request: pb.CancelJobRequest, timeout: float | None
) -> JobState:
    response = await _call(stub.CancelJob, request, timeout)
    return known_enum_from_proto(JobState, response.state)


async def _call(method: Any, request: Message, timeout: float | None) -> Any:
    """Make a call with one response, and return that.

    Raises:
        NstError: see `nst_client.errors` for each kind.
    """
    limit = finite_timeout(timeout)
    with rpc_errors(size=request.ByteSize()):
        return await call_unary(method, request, timeout=limit)
