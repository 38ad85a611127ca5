"""Calls and waiting for programs with threads: channels of `grpc`, used by any number of threads."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import grpc

from nst_client.security import ChannelSettings

_P = ParamSpec("_P")
_T = TypeVar("_T")

Channel = grpc.Channel
"""The type of a channel."""
ChannelClosedError = ValueError
"""The exception of a call on a channel that is closed."""

sleep = time.sleep
Lock = threading.Lock


def open_channel(target: str, settings: ChannelSettings) -> Channel:
    """Open a channel, which connects with the first call."""
    if settings.credentials is None:
        return grpc.insecure_channel(target, settings.options)
    return grpc.secure_channel(target, settings.credentials, settings.options)


def call_unary(method: Any, request: Any, *, timeout: float | None) -> Any:
    """Make a call with one response, and return that.

    Raises:
        grpc.RpcError: the call failed, or the channel was closed.
    """
    return method(request, timeout=timeout)


class Call:
    """One call whose responses are a stream."""

    def __init__(self, call: Any):
        self._call = call

    def read(self) -> Any:
        """Return the next response; None at the end of the stream.

        Raises:
            grpc.RpcError: the call failed or was cancelled.
        """
        return next(self._call, None)

    def cancel(self) -> None:
        """End the call. Any thread may do so."""
        self._call.cancel()


class Signal(threading.Event):
    """An event that can be waited for with a limit."""

    def wait_for(self, seconds: float) -> None:
        """Wait until the event is set, but no longer than this."""
        self.wait(seconds)


class Farewell:
    """The last message about a job. It is sent once, and whoever asks for it waits until it was answered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def say(self, message: Callable[[], _T | None], send: Callable[[_T], None]) -> None:
        """Send the message, unless there is none."""
        with self._lock:
            words = message()
            if words is not None:
                send(words)


def open_early(opening: Callable[[], object]) -> None:
    """Open a call at once, so that the job starts before anybody reads its events."""
    opening()


def run_blocking(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Run a function that reads files."""
    return function(*args, **kwargs)


def run_all(functions: Iterable[Callable[[], object]]) -> None:
    """Run the functions one after the other."""
    for function in functions:
        function()
