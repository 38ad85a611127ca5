"""What can happen to a job, in the words of the contract."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nst_service.engine.objective.losses import Term
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.lifecycle import StopReason

CHUNK_BYTES = 2**20 - 2**10
"""Most bytes of the picture in one ResultChunk, so that its message stays below 1 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a job is expected to cost."""

    seconds: float
    """Seconds of its device that the job is expected to take."""
    queue_seconds: float
    """Seconds that the job is expected to wait in the queue."""
    peak_memory_bytes: int
    tile_size: int
    """Edge of the tiles in pixels; 0 where the picture is taken as a whole."""
    reduced_from: int
    """Longest edge of the result in pixels that was asked for; 0 where it is as large as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The job exists, and this is exactly what it will do."""

    job_id: str
    options: TransferOptions
    output: OutputOptions
    width: int
    height: int
    estimate: CostEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The job waits."""

    position: int
    """Jobs ahead in the queue."""
    eta_seconds: float
    """Expected seconds until the job starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The job has a device."""

    device: str
    queued_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """How far the targets of a scale are computed."""

    scale: int
    scales: int
    part: int
    parts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The job goes on at a smaller size, which the result has in the end."""

    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the optimisation stands."""

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
    """What the picture looks like so far."""

    iteration: int
    media_type: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultHeader:
    """The finished picture follows in chunks."""

    media_type: str
    width: int
    height: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultChunk:
    """A piece of the finished picture."""

    offset: int
    data: memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a job went, in seconds."""

    queued: float
    targets: float
    optimize: float
    encode: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The job is done."""

    stop_reason: StopReason
    iterations: int
    total_loss: float
    terms: Mapping[Term, float]
    timings: Timings


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event of an earlier run, as it was kept."""

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
    | Recorded
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The end of a job that has a picture."""

    header: ResultHeader
    data: bytes
    completed: Completed

    @property
    def chunk_count(self) -> int:
        """How many ResultChunks the picture is sent in."""
        return -(-len(self.data) // CHUNK_BYTES)

    def events(self) -> Iterator[Event]:
        """Yield the last events of the job."""
        yield self.header
        yield from result_chunks(self.data)
        yield self.completed


def result_chunks(data: bytes) -> Iterator[ResultChunk]:
    """Yield a picture in pieces."""
    for offset in range(0, len(data), CHUNK_BYTES):
        yield ResultChunk(offset=offset, data=memoryview(data)[offset : offset + CHUNK_BYTES])
