"""The calls of a gRPC server: how each of them ends, and the trace that it belongs to."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.rpc import error_details_pb2, status_pb2

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", re.ASCII)
"""The header of W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header."""
_NO_TRACE = "0" * 32
_UNKNOWN_METHOD = "unknown"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Call:
    """The present call."""

    trace_id: str = ""
    is_refusal_known: bool = False


_call: ContextVar[_Call | None] = ContextVar("call", default=None)

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnded:
    """A call has ended."""

    method: str
    """Full name of the method with its service; "unknown" for a method that the server does not have."""
    code: grpc.StatusCode
    """Code of the status."""
    reason: str
    """The reason in the ErrorInfo of the status; empty if it has none."""
    message: str
    """Message of the status."""
    seconds: float
    """Seconds from the request to the last message."""
    is_refusal_known: bool = False
    """Whether the observers of jobs know that the request was refused."""


class CallObserver(Protocol):
    """Is notified of calls. It must return soon, because it is called on the event loop."""

    def begin_call(self, method: str) -> None:
        """Handle the begin of a call of a method that the server has."""

    def end_call(self, call: CallEnded) -> None:
        """Handle the end of a call."""


def current_trace_id() -> str:
    """Return the id of the trace that the present call belongs to, as 32 hexadecimal digits; empty if there is none."""
    call = _call.get()
    return call.trace_id if call else ""


def note_refusal() -> None:
    """Note that the observers of jobs know of the refusal of the request of the present call."""
    if call := _call.get():
        call.is_refusal_known = True


def trace_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the id of the trace in the metadata of a call; empty if there is none or the header is malformed."""
    values = [str(value) for key, value in metadata if key == "traceparent"]
    found = _TRACEPARENT.fullmatch(values[0]) if len(values) == 1 else None
    return "" if found is None or found["trace"] == _NO_TRACE else found["trace"]


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Notifies observers of every call. It must be the first interceptor, so that it sees what the others refuse.

    An observer that fails ends no call.
    """

    def __init__(self, *observers: CallObserver):
        self._observers = observers
        self._has_failed = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call whose end is observed."""
        _call.set(_Call(trace_id_of(handler_call_details.invocation_metadata or ())))
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            self._notify_end(
                CallEnded(
                    method=_UNKNOWN_METHOD, code=grpc.StatusCode.UNIMPLEMENTED, reason="", message="", seconds=0.0
                )
            )
            return None
        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}"
        behavior = getattr(handler, kind)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        observed: grpc.RpcMethodHandler[Any, Any] = make(
            self._observed(handler_call_details.method.removeprefix("/"), behavior),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return observed

    def _observed(self, method: str, behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
        if inspect.isasyncgenfunction(behavior):

            async def observed_generator(request: Any, context: Context) -> AsyncGenerator[Any, None]:
                with self._observing(method, context):
                    async for response in behavior(request, context):
                        yield response

            return observed_generator

        async def observed(request: Any, context: Context) -> Any:
            with self._observing(method, context):
                return await behavior(request, context)

        return observed

    def _notify_begin(self, method: str) -> None:
        for observer in self._observers:
            with self._failures_logged():
                observer.begin_call(method)

    def _notify_end(self, call: CallEnded) -> None:
        for observer in self._observers:
            with self._failures_logged():
                observer.end_call(call)

    @contextmanager
    def _failures_logged(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            # Only the first failure is logged, because such an observer may fail for every call.
            if not self._has_failed:
                _log.exception("an observer of calls failed; later failures are not logged")
            self._has_failed = True

    @contextmanager
    def _observing(self, method: str, context: Context) -> Iterator[None]:
        started = time.monotonic()
        self._notify_begin(method)
        code = grpc.StatusCode.OK
        try:
            yield
            code = _code(context) or code
        except (asyncio.CancelledError, GeneratorExit):
            remaining = context.time_remaining()
            is_late = remaining is not None and remaining <= 0
            code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
            raise
        except BaseException:
            code = _code(context) or grpc.StatusCode.UNKNOWN
            raise
        finally:
            call = _call.get()
            status = status_pb2.Status() if code is grpc.StatusCode.OK else _status(context)
            self._notify_end(
                CallEnded(
                    method=method,
                    code=code,
                    reason=_reason(status),
                    message=status.message,
                    seconds=time.monotonic() - started,
                    is_refusal_known=call is not None and call.is_refusal_known,
                )
            )


def _arity(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


def _code(context: Context) -> grpc.StatusCode | None:
    """Return the code that a handler has set; None if it has set none."""
    code: Any = context.code()
    # gRPC returns the number of a code that an abort has set.
    return next((each for each in grpc.StatusCode if code in (each, each.value[0])), None) if code else None


def _status(context: Context) -> status_pb2.Status:
    """Return the status that a handler has sent; an empty one if it has sent none."""
    sent = [value for key, value in context.trailing_metadata() or () if key == _STATUS_DETAILS_KEY]
    return status_pb2.Status.FromString(sent[0]) if sent else status_pb2.Status()


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return info.reason if any(detail.Unpack(info) for detail in status.details) else ""
