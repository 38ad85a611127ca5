"""The intake of requests: it bounds the memory and the time that a call takes before its handler has a request.

gRPC reads the request of a method with a single request before it calls the handler, up to the largest message that
the server accepts, and for as long as the client likes. Here every method is registered as one with a stream of
requests. The bytes on the wire are the same, but gRPC reads a request only when it is asked to. Until then it accepts
no more than `LOOKAHEAD_BYTES` of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import grpc

from nst_service.jobs.errors import QueueFullError
from nst_service.jobs.queue_limits import PendingBytes
from nst_service.jobs.shared_bytes import EvictedError, SharedBytes
from nst_service.memory_budget import SMALL_READS
from nst_service.rpc.errors import IncompleteRequestError, MalformedRequestError, TooManyCallsError

Context = grpc.aio.ServicerContext[Any, Any]

LOOKAHEAD_BYTES = 16 * 2**10
"""Bytes that gRPC accepts of a request before it is asked to read it. A request without pictures has fewer."""
MESSAGE_OVERHEAD_BYTES = 64 * 2**10
"""Bytes by which a request may exceed the largest one and is still read, so that the refusal can tell its size."""

_SMALL_PATIENCE = 0.5
"""Seconds for which a request without pictures is read while others wait. It is there as soon as its call is."""
_SHARE = 7 / 8
"""The largest share of the calls that one owner can have."""
_RETRY_SECONDS = 1.0
"""Seconds after which a client may try again that has waited in vain for its request to be read."""
_IPV6_HOST_BITS = 64
"""The bits of an IPv6 address that a host can choose by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """The limits of the intake."""

    max_request_bytes: int
    """The largest size of a request in bytes."""
    message_seconds: float
    """Seconds within which a request must be complete, and an answer taken."""
    max_calls: int
    """The number of calls that may be open at once."""
    max_health_watches: int
    """The number of calls that may watch the health of the server at once. They need no token."""

    @property
    def max_message_bytes(self) -> int:
        """The largest size of a message that is read, in bytes."""
        return self.max_request_bytes + MESSAGE_OVERHEAD_BYTES


class OpenCalls:
    """Counts the open calls of one kind, in all and of each owner."""

    def __init__(self, max_calls: int):
        """Make a count.

        Args:
            max_calls: the number of calls that may be open at once. One owner can have at most seven eighths of them.
        """
        self._max_calls = max_calls
        self._max_of_owner = max(1, round(_SHARE * max_calls))
        self._calls: Counter[str] = Counter()

    @contextlib.contextmanager
    def open(self, owner: str) -> Iterator[None]:
        """Count a call until the context ends.

        Raises:
            TooManyCallsError: too many calls are open.
        """
        if self._calls.total() >= self._max_calls or self._calls[owner] >= self._max_of_owner:
            raise TooManyCallsError(self._calls.total())
        self._calls[owner] += 1
        try:
            yield
        finally:
            self._calls[owner] -= 1
            if not self._calls[owner]:
                del self._calls[owner]


class Intake:
    """Decides which requests are read now. It belongs to the event loop."""

    def __init__(self, pending: PendingBytes, limits: IntakeLimits):
        """Make the intake of a server.

        Args:
            pending: the bytes of the requests with pictures that are not jobs yet.
            limits: the limits.
        """
        self._limits = limits
        self._pictures = pending.shared
        self._small = SharedBytes(SMALL_READS * limits.max_message_bytes, patience=_SMALL_PATIENCE)
        self.calls = OpenCalls(limits.max_calls)
        """The open calls of all services except health."""
        self.health_checks = OpenCalls(limits.max_calls)
        """The open calls that ask for the health of the server."""
        self.health_watches = OpenCalls(limits.max_health_watches)
        """The open calls that watch it."""

    async def read(self, context: Context, caller: str, *, has_pictures: bool) -> bytes:
        """Return the request of a call.

        Nothing tells the size of a request before it is read. So each has room for the largest one meanwhile.

        Args:
            context: the call.
            caller: whose turn it is (see `caller_of`).
            has_pictures: whether the method takes pictures.

        Raises:
            QueueFullError: there was no room for the request in time.
            IncompleteRequestError: the request was not complete in time, or others have waited for its room.
            MalformedRequestError: the call has ended without a request.
        """
        # Small requests are so short that connections can take turns, which tells a flood from others better.
        shared, caller = (self._pictures, caller) if has_pictures else (self._small, str(context.peer()))
        seconds = self._limits.message_seconds
        has_begun = False
        try:
            async with shared.turn(self._limits.max_message_bytes, caller, seconds=seconds), asyncio.timeout(seconds):
                has_begun = True
                message: bytes | Any = await context.read()
        except EvictedError as error:
            raise IncompleteRequestError("while others waited for their turn") from error
        except TimeoutError as error:
            if not has_begun:
                raise QueueFullError(f"requests of {shared.held} bytes", _RETRY_SECONDS) from error
            raise IncompleteRequestError(f"within {seconds:g} s") from error
        if not isinstance(message, bytes):
            raise MalformedRequestError
        return message

    async def messages(
        self, context: Context, caller: str, decode: Callable[[bytes], Any]
    ) -> AsyncGenerator[Any, None]:
        """Yield the requests of a call with a stream of small requests, each of which must come in time."""
        while True:
            try:
                message = await self.read(context, caller, has_pictures=False)
            except MalformedRequestError:
                # The client will send no more.
                return
            yield decode(message)


def caller_of(owner: str, context: Context) -> str:
    """Return whose turn a call takes: the owner's, or that of the host that the call comes from if it has no owner."""
    if owner:
        return owner
    kind, _, address = str(context.peer()).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    host = unquote(address.rpartition(":")[0]).strip("[]").partition("%")[0]
    try:
        parsed = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 128 - _IPV6_HOST_BITS), strict=False))
    return str(parsed)
