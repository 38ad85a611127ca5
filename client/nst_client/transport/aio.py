"""Calls and waiting for programs with asyncio: channels of `grpc.aio`, used by one event loop."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ParamSpec, TypeVar

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
    """Open a channel, which connects with the first call."""
    if settings.credentials is None:
        return grpc.aio.insecure_channel(target, settings.options)
    return grpc.aio.secure_channel(target, settings.credentials, settings.options)


class Call:
    """One call whose responses are a stream."""

    def __init__(self, call: Any):
        self._call = call
        self._is_cancelled = False

    async def read(self) -> Any:
        """Return the next response; None at the end of the stream.

        Raises:
            grpc.RpcError: the call failed or was cancelled.
        """
        try:
            response = await self._call.read()
        except asyncio.CancelledError:
            # gRPC raises it for a call that was cancelled here, too, which must not look like a cancelled task.
            task = asyncio.current_task()
            if self._is_cancelled and task is not None and not task.cancelling():
                raise grpc.RpcError from None
            raise
        return None if response is grpc.aio.EOF else response

    def cancel(self) -> None:
        """End the call."""
        self._is_cancelled = True
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
