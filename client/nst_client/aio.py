"""The client for programs with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_client.errors import ConnectionOptionsError, JobCancelledError, UnavailableError, from_rpc_error, rpc_errors
from nst_client.events import Estimate, Event
from nst_client.info import Health, JobState, ServerInfo
from nst_client.options import OutputOptions, Picture, Styles, TransferOptions
from nst_client.result import Result
from nst_client.security import Tls, channel_settings
from nst_client.session import GIVEN_UP, READY_PAUSE, RETRIES, TARGET, Session
from nst_client.translate import enum_from_proto, estimate_from_proto, info_from_proto, request_to_proto


class AsyncStylization(AsyncIterator[Event]):
    """The events of one stylisation as they happen; `result` once they are exhausted.

    Leaving it as an async context manager, or closing it, ends the job if it still runs.
    """

    def __init__(
        self,
        stub: pb_grpc.StyleTransferServiceAsyncStub,
        build_request: Callable[[], pb.StylizeRequest],
        *,
        timeout: float | None,
        retries: int,
    ):
        """Use `AsyncStyleTransferClient.stream`."""
        self._stub = stub
        self._build_request = build_request
        self._request: pb.StylizeRequest | None = None
        self._session = Session(timeout=timeout, retries=retries, now=time.monotonic())
        self._call: grpc.aio.UnaryStreamCall[pb.StylizeRequest, pb.StylizeResponse] | None = None
        self._ended = False
        self._given_up = asyncio.Event()

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
            self._give_up()
            return None
        return await _cancel(self._stub, job_id, timeout)

    async def close(self) -> None:
        """End the call, and with it the job if it still runs. There are no more events."""
        self._ended = True
        self._give_up()

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
            while not self._ended:
                event = await self._receive()
                if event is not None:
                    return event
        except BaseException:
            await self.close()
            raise
        raise StopAsyncIteration

    async def _receive(self) -> Event | None:
        """Take one message, wait for the next attempt, or take the end."""
        call = self._call or await self._open()
        try:
            response = await call.read()
        except grpc.RpcError as error:
            delay = self._session.fail(from_rpc_error(error), now=time.monotonic(), jitter=random.random())
            await self._wait(delay)
            self._call = None
        except asyncio.CancelledError:
            # gRPC raises it for a call that was cancelled here, which must not look like a cancelled task.
            task = asyncio.current_task()
            if self._given_up.is_set() and task is not None and not task.cancelling():
                raise JobCancelledError(GIVEN_UP) from None
            raise
        else:
            if isinstance(response, pb.StylizeResponse):
                return self._session.receive(response)
            self._session.end()
            self._ended = True
        return None

    async def _open(self) -> Any:
        if self._request is None:
            self._request = await asyncio.to_thread(self._build_request)
        if self._given_up.is_set():
            raise JobCancelledError(GIVEN_UP)
        self._call = self._stub.Stylize(self._request, timeout=self._session.remaining(time.monotonic()))
        return self._call

    async def _wait(self, seconds: float) -> None:
        """Wait, but not after the caller has given up."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given_up.wait(), seconds)

    def _give_up(self) -> None:
        self._given_up.set()
        if self._call is not None:
            self._call.cancel()


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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; whatever still runs on it is cancelled."""
        if self._owned:
            await self._owned.close()

    async def stylize(
        self,
        content: Picture,
        styles: Styles,
        *,
        content_mask: Picture | None = None,
        init_picture: Picture | None = None,
        reference: Picture | None = None,
        reference_mask: Picture | None = None,
        options: TransferOptions | None = None,
        output: OutputOptions | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
        on_event: Callable[[Event], object] | None = None,
    ) -> Result:
        """Stylise a picture and wait for the result (see `StyleTransferClient.stylize`)."""
        async with self.stream(
            content,
            styles,
            content_mask=content_mask,
            init_picture=init_picture,
            reference=reference,
            reference_mask=reference_mask,
            options=options,
            output=output,
            timeout=timeout,
        ) as events:
            async for event in events:
                if on_event:
                    on_event(event)
            return events.result

    def stream(
        self,
        content: Picture,
        styles: Styles,
        *,
        content_mask: Picture | None = None,
        init_picture: Picture | None = None,
        reference: Picture | None = None,
        reference_mask: Picture | None = None,
        options: TransferOptions | None = None,
        output: OutputOptions | None = None,
        timeout: float | None = None,
    ) -> AsyncStylization:
        """Return the iterator of the events of a stylisation (see `StyleTransferClient.stylize` for the arguments).

        Files are read, and the job starts, when the first event is awaited.
        """
        build = partial(
            request_to_proto,
            content,
            styles,
            content_mask=content_mask,
            init_picture=init_picture,
            reference=reference,
            reference_mask=reference_mask,
            options=options,
            output=output,
        )
        return AsyncStylization(self._stub, build, timeout=timeout, retries=self._retries)

    async def estimate(
        self,
        content: Picture,
        styles: Styles,
        *,
        content_mask: Picture | None = None,
        init_picture: Picture | None = None,
        reference: Picture | None = None,
        reference_mask: Picture | None = None,
        options: TransferOptions | None = None,
        output: OutputOptions | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels to the server
    ) -> Estimate:
        """Return what a stylisation would do and cost, without doing it (see `stylize` for the arguments).

        Raises:
            NstError: see `nst_client.errors` for each kind.
        """
        build = partial(
            request_to_proto,
            content,
            styles,
            content_mask=content_mask,
            init_picture=init_picture,
            reference=reference,
            reference_mask=reference_mask,
            options=options,
            output=output,
        )
        request = pb.EstimateRequest(stylize=await asyncio.to_thread(build))
        with rpc_errors():
            response = await self._stub.Estimate(request, timeout=timeout)
        return estimate_from_proto(response)

    async def cancel(self, job_id: str, *, timeout: float | None = None) -> JobState:  # noqa: ASYNC109
        """Cancel a job (see `StyleTransferClient.cancel`)."""
        return await _cancel(self._stub, job_id, timeout)

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


async def _cancel(stub: pb_grpc.StyleTransferServiceAsyncStub, job_id: str, timeout: float | None) -> JobState:  # noqa: ASYNC109
    with rpc_errors():
        response = await stub.CancelJob(pb.CancelJobRequest(job_id=job_id), timeout=timeout)
    return enum_from_proto(JobState, response.state) or JobState.UNKNOWN
