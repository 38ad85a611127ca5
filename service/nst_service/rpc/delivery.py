"""The delivery of messages to clients: it bounds the memory of what clients do not read."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nst_service.jobs.shared_bytes import SharedBytes
from nst_service.rpc.connections import disconnect
from nst_service.rpc.intake import Context

_COPIES = 2
"""The number of copies of a message that are in memory until the client has taken it: ours and that of gRPC."""
_SMALL_BYTES = 16 * 2**10
"""Size in bytes up to which a message counts as a part of its call. The number of calls bounds them."""
_PATIENCE = 10.0
"""Seconds for which a client can take a message while others wait."""


class Deliveries:
    """Sends messages to clients, in turns between their owners. It belongs to the event loop."""

    def __init__(self, max_bytes: int):
        """Make the delivery of a server.

        Args:
            max_bytes: memory in bytes of the messages that are being sent.
        """
        self._shared = SharedBytes(max_bytes, patience=_PATIENCE)

    async def write(self, context: Context, caller: str, message: bytes, *, seconds: float | None = None) -> None:
        """Send a serialised message, when it is the turn of the caller.

        If others have waited long enough, or the time is up, the connection of the client ends, which cancels the call.

        Args:
            context: the call.
            caller: whose turn it is (see `intake.caller_of`).
            message: the message.
            seconds: seconds within which the client must take the message; None for no limit of its own.
        """
        loop = asyncio.get_running_loop()
        timer = None if seconds is None else loop.call_later(seconds, disconnect, context.peer())
        try:
            if len(message) <= _SMALL_BYTES:
                await context.write(message)
            else:
                async with self.turn(context, caller, len(message)):
                    await context.write(message)
        finally:
            if timer:
                timer.cancel()

    @contextlib.asynccontextmanager
    async def turn(self, context: Context, caller: str, size: int) -> AsyncIterator[None]:
        """Wait until a message of this size in bytes can be made and sent, which must happen within the context."""
        async with self._shared.turn(_COPIES * size, caller, evict=lambda: _leave(context)):
            yield


def _leave(context: Context) -> None:
    disconnect(context.peer())
