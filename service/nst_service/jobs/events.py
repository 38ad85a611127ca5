"""The events of a job, with the names that they have in the contract."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from nst_service.engine.objective.losses import Term
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.lifecycle import StopReason

CHUNK_BYTES = 2**20 - 2**10
"""The largest number of bytes in a ResultChunk. Its message then stays below 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """The expected cost of a job."""

    seconds: float
    """Seconds of its device that the job is expected to take."""
    queue_seconds: float
    """Seconds that the job is expected to wait in the queue."""
    peak_memory_bytes: int
    tile_size: int
    """Edge of the tiles in pixels; 0 if the picture is processed as a whole."""
    reduced_from: int
    """The requested longest edge of the result in pixels; 0 if the result is as large as requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The job exists and is stored. These are its options, with every default filled in."""

    job_id: str
    options: TransferOptions
    output: OutputOptions
    width: int
    height: int
    estimate: CostEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The job waits for a device."""

    position: int
    """The number of jobs ahead in the queue."""
    eta_seconds: float
    """Expected seconds until the job starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The job has begun to run on a device."""

    device: str
    queued_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """A part of the targets of a scale has been computed."""

    scale: int
    scales: int
    part: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """Memory ran out, and the job goes on at a smaller size, which the result will have."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The optimisation has taken a step."""

    scale: int
    scales: int
    iteration: int
    total_iterations: int
    total_loss: float
    terms: Mapping[Term, float]
    elapsed_seconds: float
    eta_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A small copy of the picture so far."""

    iteration: int
    media_type: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultHeader:
    """The picture is finished. Its bytes follow in chunks."""

    media_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


class ResultChunk:
    """A part of the bytes of the finished picture, which is in memory or is read from the store when it is needed."""

    __slots__ = ("_read", "offset", "size")

    def __init__(self, *, offset: int, data: memoryview):
        """Make a part that is in memory.

        Args:
            offset: the offset of its first byte in the picture.
            data: its bytes.
        """
        self.offset = offset
        """The offset of its first byte in the picture."""
        self.size = len(data)
        """The number of its bytes."""
        self._read: Callable[[], memoryview] = lambda: data

    @classmethod
    def stored(cls, offset: int, size: int, read: Callable[[int, int], bytes]) -> Self:
        """Return a part that the store has.

        Args:
            offset: the offset of its first byte in the picture.
            size: the number of its bytes.
            read: returns as many bytes of the picture from an offset on. It blocks, and raises what the store raises.
        """
        chunk = cls(offset=offset, data=memoryview(b""))
        chunk.size = size
        chunk._read = lambda: memoryview(read(offset, size))
        return chunk

    @property
    def data(self) -> memoryview:
        """Its bytes. This property blocks while they are read from the store."""
        return self._read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The seconds that each phase of a job took."""

    queued: float
    targets: float
    optimize: float
    encode: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The job has ended with a picture."""

    stop_reason: StopReason
    iterations: int
    total_loss: float
    terms: Mapping[Term, float]
    timings: Timings


@dataclass(frozen=True, slots=True)
class SerializedEvent:
    """An event from the store, in serialised form."""

    data: bytes


Event = (
    Accepted
    | Queued
    | Started
    | Preparing
    | Reduced
    | Progress
    | Preview
    | ResultHeader
    | ResultChunk
    | Completed
    | SerializedEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The finished picture of a job, and the events that deliver it."""

    header: ResultHeader
    data: bytes
    completed: Completed

    @property
    def chunk_count(self) -> int:
        """The number of ResultChunks that deliver the picture."""
        return -(-len(self.data) // CHUNK_BYTES)

    def events(self, chunks: Iterable[ResultChunk] | None = None) -> Iterator[Event]:
        """Yield the last events of the job: header, chunks, Completed.

        Args:
            chunks: the chunks of the stored picture; None for chunks that hold the picture.
        """
        yield self.header
        yield from result_chunks(self.data) if chunks is None else chunks
        yield self.completed


def result_chunks(data: bytes) -> Iterator[ResultChunk]:
    """Yield the bytes of a picture in chunks of at most CHUNK_BYTES."""
    for offset in range(0, len(data), CHUNK_BYTES):
        yield ResultChunk(offset=offset, data=memoryview(data)[offset : offset + CHUNK_BYTES])


def stored_chunks(size: int, read: Callable[[int, int], bytes]) -> Iterator[ResultChunk]:
    """Yield the chunks of a stored picture of this size in bytes, which `read` reads (see `ResultChunk.stored`)."""
    for offset in range(0, size, CHUNK_BYTES):
        yield ResultChunk.stored(offset, min(CHUNK_BYTES, size - offset), read)
