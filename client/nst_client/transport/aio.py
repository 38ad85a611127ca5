"""Calls and waiting for programs with asyncio: channels of `grpc.aio`, used by one event loop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, ParamSpec, Self, TypeVar

import grpc

from nst_client.security import ChannelSettings

_P = ParamSpec("_P")
_T = TypeVar("_T")

Channel = grpc.aio.Channel
"""The type of a channel."""
ChannelClosedError = grpc.aio.UsageError
"""The exception of a call on a channel that is closed."""

sleep = asyncio.sleep


def open_channel(target: str, settings: ChannelSettings) -> Channel:
    """Return a channel, which opens and connects with the first call."""
    return _LateChannel(target, settings)


class _LateChannel(grpc.aio.Channel):
    """A channel that opens with its first call, since gRPC binds a channel to the event loop that it finds then.

    Programs make their client at the top of a module, too, where no event loop runs yet.
    """

    def __init__(self, target: str, settings: ChannelSettings):
        self._target = target
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def _open(self) -> grpc.aio.Channel:
        """Return the channel of the running event loop."""
        if self._is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        loop = asyncio.get_running_loop()
        if self._channel is None or loop is not self._loop:
            target, settings = self._target, self._settings
            if settings.credentials is None:
                self._channel = grpc.aio.insecure_channel(target, settings.options)
            else:
                self._channel = grpc.aio.secure_channel(target, settings.credentials, settings.options)
            self._loop = loop
        return self._channel

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        """Return a function that makes a call."""
        return self._late("unary_unary", method, options)

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        """Return a function that makes a call."""
        return self._late("unary_stream", method, options)

    def stream_unary(self, *method: Any, **options: Any) -> Any:
        """Return a function that makes a call."""
        return self._late("stream_unary", method, options)

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        """Return a function that makes a call."""
        return self._late("stream_stream", method, options)

    def _late(self, kind: str, method: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
        def call(*request: Any, **arguments: Any) -> Any:
            return getattr(self._open(), kind)(*method, **options)(*request, **arguments)

        return call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""
        self._is_closed = True
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        return self._open().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state of the connection is another one."""
        await self._open().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until there is a connection."""
        await self._open().channel_ready()


@contextlib.contextmanager
def _cancelled_calls() -> Iterator[None]:
    """Raise an RpcError for a call in the body that was cancelled here.

    gRPC raises CancelledError for it, with which a task group would take the task for cancelled.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        metadata = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, metadata, metadata, details="Channel closed!") from None


async def call_unary(method: Any, request: Any, *, timeout: float | None) -> Any:
    """Make a call with one response, and return that.

    Raises:
        grpc.RpcError: the call failed, or the channel was closed.
    """
    with _cancelled_calls():
        return await method(request, timeout=timeout)


class Call:
    """One call whose responses are a stream."""

    def __init__(self, call: Any):
        self._call = call

    async def read(self) -> Any:
        """Return the next response; None at the end of the stream.

        Raises:
            grpc.RpcError: the call failed or was cancelled.
        """
        with _cancelled_calls():
            response = await self._call.read()
        return None if response is grpc.aio.EOF else response

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()


class Lock(contextlib.nullcontext[None]):
    """Guards nothing: between two awaits, no other task of the event loop runs."""


class Signal(asyncio.Event):
    """An event that can be waited for with a limit."""

    async def wait_for(self, seconds: float) -> None:
        """Wait until the event is set, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), seconds)


class Farewell:
    """The last message about a job. It is sent once, and whoever asks for it waits until it was answered."""

    def __init__(self) -> None:
        self._sent: asyncio.Future[None] | None = None

    async def say(self, message: Callable[[], _T | None], send: Callable[[_T], Awaitable[None]]) -> None:
        """Send the message, unless there is none."""
        words = message()
        if words is not None:
            self._sent = asyncio.ensure_future(send(words))
        if self._sent is not None:
            # A task that is cancelled again while it waits here does not stop a message that is being sent.
            await asyncio.shield(self._sent)


def open_early(opening: Callable[[], Awaitable[object]]) -> None:
    """Do nothing: a constructor cannot await. The first read opens the call."""
    del opening


async def run_blocking(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a function that reads files, in a thread so that the event loop goes on."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def run_all(functions: Iterable[Callable[[], Awaitable[object]]]) -> None:
    """Run the functions at the same time."""
    await asyncio.gather(*(function() for function in functions))
