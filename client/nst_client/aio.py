"""The client for programs with asyncio."""

from __future__ import annotations

import asyncio
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
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_client.errors import (
    ConnectionOptionsError,
    NstError,
    PictureNotFoundError,
    UnavailableError,
    from_rpc_error,
    rpc_errors,
)
from nst_client.events import Estimate, Event
from nst_client.fields import EstimateFields, StylizeFields, check_fields, spell_out
from nst_client.info import Health, Job, JobState, ServerInfo
from nst_client.options import Picture, Styles
from nst_client.result import Result
from nst_client.security import Tls, channel_settings
from nst_client.session import FAREWELL_SECONDS, READY_PAUSE, RECONNECT_SECONDS, RETRIES, TARGET, Session
from nst_client.translate import (
    enum_from_proto,
    estimate_from_proto,
    info_from_proto,
    job_from_proto,
    list_to_proto,
    one_id,
    request_to_proto,
    watch_to_proto,
)
from nst_client.uploads import SentPictures, Upload


class AsyncStylization(AsyncIterator[Event]):
    """The events of one job as they happen; `result` once they are exhausted (see `Stylization`).

    Leaving it as an async context manager, closing it, or cancelling the task that waits for the next event ends the
    job if it still runs, unless it was started with `keep_running` or is only watched.
    """

    def __init__(self, stub: pb_grpc.StyleTransferServiceAsyncStub, session: Session):
        """Use `AsyncStyleTransferClient.stream` or `watch`."""
        self._stub = stub
        self._session = session
        self._call: Any = None
        self._events: deque[Event] = deque()
        """That have come and were not asked for yet."""
        self._ended = False
        self._given_up = asyncio.Event()
        self._farewell: asyncio.Future[None] | None = None

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

    async def cancel(self, *, timeout: float | None = None) -> JobState | None:  # noqa: ASYNC109
        """Ask the server to end the job; go on iterating for the best picture so far (see `Stylization.cancel`)."""
        job_id = self.job_id
        if job_id is None:
            await self._leave(ending=True)
            return None
        return await _cancel(self._stub, pb.CancelJobRequest(job_id=job_id), timeout)

    async def close(self) -> None:
        """End the call, and with it the job if it still runs and is not to be kept. There are no more events."""
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
        """Take one message, wait for the next attempt, or take the end."""
        call = self._call or await self._open()
        try:
            response = await call.read()
        except grpc.RpcError as error:
            if self._given_up.is_set():
                raise self._session.given_up() from error
            delay = self._session.fail(from_rpc_error(error), now=time.monotonic(), jitter=random.random())
            if delay is None:
                self._ended = True
            else:
                await self._wait(delay)
                self._call = None
        except asyncio.CancelledError:
            # gRPC raises it for a call that was cancelled here, which must not look like a cancelled task.
            task = asyncio.current_task()
            if self._given_up.is_set() and task is not None and not task.cancelling():
                raise self._session.given_up() from None
            raise
        else:
            if response is not grpc.aio.EOF:
                return self._session.receive(response.event, now=time.monotonic())
            self._session.end()
            self._ended = True
        return ()

    async def _open(self) -> Any:
        # In a thread, since the first one reads files.
        request = await asyncio.to_thread(self._session.next_request, time.monotonic())
        if self._given_up.is_set():
            raise self._session.given_up()
        method: Any = self._stub.WatchJob if isinstance(request, pb.WatchJobRequest) else self._stub.Stylize
        self._call = method(request, timeout=self._session.remaining(time.monotonic()))
        return self._call

    async def _wait(self, seconds: float) -> None:
        """Wait, but not after the caller has given up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given_up.wait(), seconds)

    def _give_up(self) -> None:
        self._given_up.set()
        if self._call is not None:
            self._call.cancel()

    async def _leave(self, *, ending: bool = False) -> None:
        """End the call, and say so to a server that would wait for another one."""
        self._give_up()
        request = self._session.abandon(ending=ending)
        if request is not None:
            self._farewell = asyncio.ensure_future(_cancel_quietly(self._stub, request))
        if self._farewell is not None:
            # A task that is cancelled once more, while it waits here, does not stop what it has begun to say.
            await asyncio.shield(self._farewell)


class AsyncStyleTransferClient:
    """A client of one server, for one event loop. Use it as an async context manager, which closes it."""

    def __init__(
        self,
        target: str = TARGET,
        *,
        tls: Tls | None = None,
        token: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.aio.Channel | None = None,
        retries: int = RETRIES,
        reconnect_seconds: float = RECONNECT_SECONDS,
    ):
        """Open a channel; it connects with the first call (see `StyleTransferClient` for the arguments)."""
        self._owned = None
        if channel is None:
            settings = channel_settings(target, tls=tls, token=token, credentials=credentials)
            self._owned = channel = (
                grpc.aio.secure_channel(target, settings.credentials, settings.options)
                if settings.credentials
                else grpc.aio.insecure_channel(target, settings.options)
            )
        elif tls is not None or token is not None or credentials is not None:
            raise ConnectionOptionsError("tls, token and credentials are for channels that the client opens itself")
        self._stub = pb_grpc.StyleTransferServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._retries = retries
        self._reconnect_seconds = reconnect_seconds
        self._sent = SentPictures()
        self._streams: weakref.WeakSet[AsyncStylization] = weakref.WeakSet()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End whatever still runs, as `close` of each does, and close the channel if the client opened it."""
        await asyncio.gather(*(stream._leave() for stream in list(self._streams)))
        if self._owned:
            await self._owned.close()

    @spell_out(StylizeFields)
    async def stylize(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
        on_event: Callable[[Event], object] | None = None,
        **fields: Unpack[StylizeFields],
    ) -> Result:
        """Stylise a picture and wait for the result (see `StyleTransferClient.stylize`)."""
        check_fields(self.stylize, fields)
        async with self.stream(content, styles, timeout=timeout, **fields) as events:
            async for event in events:
                if on_event:
                    on_event(event)
            return events.result

    @spell_out(StylizeFields)
    def stream(
        self,
        content: Picture,
        styles: Styles,
        *,
        timeout: float | None = None,
        **fields: Unpack[StylizeFields],
    ) -> AsyncStylization:
        """Return the iterator of the events of a stylisation (see `StyleTransferClient.stylize` for the arguments).

        Files are read, and the job starts, when the first event is awaited.
        """
        check_fields(self.stream, fields)
        if fields.get("request_id") is None:
            fields["request_id"] = str(uuid.uuid4())
        build = partial(request_to_proto, content, styles, **fields)
        return self._follow(Upload(build, self._sent), keep_running=fields.get("keep_running", False), timeout=timeout)

    def watch(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        after_sequence: int = 0,
        timeout: float | None = None,
    ) -> AsyncStylization:
        """Follow a job and return the iterator of its events (see `StyleTransferClient.watch`)."""
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
        stream = AsyncStylization(self._stub, session)
        self._streams.add(stream)
        return stream

    async def get(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> Job:
        """Return where a job stands (see `StyleTransferClient.get`)."""
        request = pb.GetJobRequest(**one_id(job_id, request_id))
        with rpc_errors():
            response = await self._stub.GetJob(request, timeout=timeout)
        return job_from_proto(response.job)

    async def list_jobs(
        self,
        states: Iterable[JobState] = (),
        *,
        page_size: int | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> AsyncIterator[Job]:
        """Yield the caller's jobs, newest first (see `StyleTransferClient.list_jobs`)."""
        request = list_to_proto(states, page_size)
        while True:
            with rpc_errors():
                page = await self._stub.ListJobs(request, timeout=timeout)
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
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
        **fields: Unpack[EstimateFields],
    ) -> Estimate:
        """Return what a stylisation would do and cost, without doing it (see `stylize` for the arguments).

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        check_fields(self.estimate, fields)
        build = partial(request_to_proto, content, styles, **fields)
        upload = Upload(build, self._sent)
        while True:
            request = pb.EstimateRequest(stylize=await asyncio.to_thread(upload.message))
            try:
                with rpc_errors():
                    return estimate_from_proto(await self._stub.Estimate(request, timeout=timeout))
            except PictureNotFoundError:
                if not upload.restore():
                    raise

    async def cancel(
        self,
        job_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> JobState:
        """Cancel a job (see `StyleTransferClient.cancel`)."""
        return await _cancel(self._stub, pb.CancelJobRequest(**one_id(job_id, request_id)), timeout)

    async def info(self, *, timeout: float | None = None) -> ServerInfo:  # noqa: ASYNC109
        """Return the server's description of itself (see `StyleTransferClient.info`)."""
        with rpc_errors():
            return info_from_proto(await self._stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=timeout))

    async def health(self, *, timeout: float | None = None) -> Health:  # noqa: ASYNC109
        """Return whether the server takes jobs (see `StyleTransferClient.health`)."""
        with rpc_errors():
            response = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        return enum_from_proto(Health, response.status) or Health.UNKNOWN

    async def wait_until_ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until there is a server and it takes jobs (see `StyleTransferClient.wait_until_ready`)."""
        deadline = time.monotonic() + timeout
        while not await self._becomes_ready(max(0.0, deadline - time.monotonic())):  # noqa: ASYNC110
            await asyncio.sleep(READY_PAUSE)

    async def _becomes_ready(self, timeout: float) -> bool:  # noqa: ASYNC109
        watch = self._health.Watch(health_pb2.HealthCheckRequest(), timeout=timeout, wait_for_ready=True)
        try:
            with rpc_errors():
                async for response in watch:
                    if enum_from_proto(Health, response.status) is Health.SERVING:
                        return True
        except UnavailableError:
            pass
        finally:
            watch.cancel()
        return False


async def _cancel(
    stub: pb_grpc.StyleTransferServiceAsyncStub,
    request: pb.CancelJobRequest,
    timeout: float | None,  # noqa: ASYNC109
) -> JobState:
    with rpc_errors():
        response = await stub.CancelJob(request, timeout=timeout)
    return enum_from_proto(JobState, response.state) or JobState.UNKNOWN


async def _cancel_quietly(stub: pb_grpc.StyleTransferServiceAsyncStub, request: pb.CancelJobRequest) -> None:
    # Without a channel there is nobody to tell.
    with contextlib.suppress(NstError, grpc.aio.UsageError):
        await _cancel(stub, request, FAREWELL_SECONDS)
