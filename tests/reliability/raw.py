"""A client that speaks HTTP/2 as it likes: it sends half of a request, or reads nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import h2.config
import h2.connection
import h2.events
import h2.settings

_PREFIX = "/nst.v1.StyleTransferService/"
WATCH_HEALTH, CHECK_HEALTH = "/grpc.health.v1.Health/Watch", "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
_READ_BYTES = 2**16


def method(name: str) -> str:
    """Return the path of a method of the contract."""
    return _PREFIX + name


class RawConnection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int | None):
        self._reader, self._writer = reader, writer
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._http.initiate_connection()
        if window is not None:
            self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self._changed = asyncio.Event()
        self.trailers: dict[int, dict[str, str]] = {}
        """The headers with a status, by the number of the stream."""
        self.data: dict[int, int] = {}
        """The number of bytes that each stream has brought."""
        self.resets: set[int] = set()
        self.is_closed = False
        self._flush()
        self._reading = asyncio.create_task(self._read())

    def open(self, path: str, headers: Iterable[tuple[str, str | bytes]] = ()) -> int:
        """Open a call and return the number of its stream."""
        stream = self._http.get_next_available_stream_id()
        self._http.send_headers(
            stream,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "test"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                *headers,
            ],
        )
        self._flush()
        return stream

    def send_message(self, stream: int, message: bytes) -> None:
        """Send a small message whole, and end the requests of the call."""
        self._http.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        self._flush()

    async def send_part(self, stream: int, size: int, declared: int, patience: float = 1.0) -> int:
        """Send this many bytes of a message, or as many as the server accepts within the patience; return how many."""
        prefix, sent = b"\0" + declared.to_bytes(4, "big"), 0
        size += len(prefix)
        while sent < size and not self.is_closed and stream not in self.resets | self.trailers.keys():
            room = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size, size - sent)
            if room < len(prefix):
                self._flush()
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), patience)
                except TimeoutError:
                    break
                continue
            # Not zeros, which the system may not have to keep.
            self._http.send_data(stream, (b"" if sent else prefix).ljust(room, b"\x5a"))
            sent += room
            self._flush()
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
        return sent

    async def status(self, stream: int, patience: float = 60.0) -> dict[str, str]:
        """Return the headers with the status of a call."""
        async with asyncio.timeout(patience):
            while stream not in self.trailers:
                if self.is_closed:
                    raise ConnectionError
                self._changed.clear()
                await self._changed.wait()
        return self.trailers[stream]

    async def closed(self, patience: float = 60.0) -> None:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(patience):
            await asyncio.shield(self._reading)

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _flush(self) -> None:
        self._writer.write(self._http.data_to_send())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(_READ_BYTES):
                for event in self._http.receive_data(data):
                    self._note(event)
                self._flush()
                self._changed.set()
        self.is_closed = True
        self._changed.set()

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.DataReceived():
                self.data[event.stream_id] = self.data.get(event.stream_id, 0) + len(event.data)
            case h2.events.StreamReset():
                self.resets.add(event.stream_id)
            case h2.events.TrailersReceived() | h2.events.ResponseReceived():
                headers = {
                    (name if isinstance(name, str) else name.decode()): (
                        value if isinstance(value, str) else value.decode()
                    )
                    for name, value in event.headers
                }
                if "grpc-status" in headers:
                    self.trailers[event.stream_id] = headers


@contextlib.asynccontextmanager
async def raw_connection(port: int, *, window: int | None = None) -> AsyncIterator[RawConnection]:
    """Connect to a server.

    Args:
        port: its port on this machine.
        window: bytes of each response that the server may send without being asked for more; None for 64 KiB. The
            client asks for no more.
    """
    connection = RawConnection(*await asyncio.open_connection("127.0.0.1", port), window)
    try:
        yield connection
    finally:
        await connection.close()
