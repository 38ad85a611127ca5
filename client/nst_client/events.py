"""What happens to a job, event by event."""

from dataclasses import dataclass, field
from enum import StrEnum

from nst_client.options import OutputOptions, TransferOptions


class LossKind(StrEnum):
    """The losses."""

    UNKNOWN = "unknown"
    """One that this version of the client does not know."""
    CONTENT = "content"
    """Mean squared difference of features."""
    STYLE = "style"
    """Difference of the style statistic."""
    TOTAL_VARIATION = "total_variation"
    """Total variation of the picture."""
    LAPLACIAN = "laplacian"
    """Mean squared difference of the Laplacian from that of the content."""
    TEMPORAL = "temporal"
    """Mean squared difference from the reference."""


class StopReason(StrEnum):
    """Why an optimisation ended."""

    UNKNOWN = "unknown"
    """One that this version of the client does not know."""
    ITERATIONS = "iterations"
    """All iterations were done."""
    CANCELLED = "cancelled"
    """The job was cancelled; the picture is the best until then."""
    DEADLINE = "deadline"
    """The timeout came near; the picture is the best until then."""
    SHUTDOWN = "shutdown"
    """The server shut down; the picture is the best until then."""
    CONVERGED = "converged"
    """The loss no longer fell by `min_improvement`."""
    TIME_BUDGET = "time_budget"
    """The time budget was spent."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A set of weights of VGG-19."""

    id: str
    """The source: "caffe", "torchvision" or the name of a file."""
    sha256: str
    """SHA-256 of the file they come from, lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a job is expected to cost."""

    seconds: float
    """Seconds on the device, without the wait in the queue and the turns of other jobs."""
    queue_seconds: float
    """Seconds in the queue."""
    peak_memory_bytes: int
    """Peak of the memory that the job needs on its device."""
    tile_size: int
    """Edge in pixels of the tiles that the picture is worked on in; 0: as a whole."""
    reduced_from: int
    """Longest edge in pixels that was asked for, where the result is smaller to stay within the memory there is
    (`TransferOptions.min_image_size`); 0: as large as asked for."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a stylisation would do and cost."""

    options: TransferOptions
    """The options with every default filled in."""
    output: OutputOptions
    """The output options with every default filled in."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    cost: CostEstimate
    """What it is expected to cost."""


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of the objective."""

    kind: LossKind
    """The loss."""
    layer: str
    """The layer of VGG-19; empty for losses on pixels."""
    value: float
    """The value, all weights included."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Where the time of a job went, in seconds."""

    queued_seconds: float
    """From acceptance to start."""
    targets_seconds: float
    """From start to the first iteration."""
    optimize_seconds: float
    """The iterations, and the turns of other jobs between them."""
    encode_seconds: float
    """Encoding the picture."""


@dataclass(frozen=True, kw_only=True)
class _Sequenced:
    """What every event has."""

    sequence: int
    """Grows from event to event of a job, not always by one; 0 in the description of a `Job`."""


@dataclass(frozen=True, kw_only=True)
class Accepted(_Sequenced):
    """The job exists, and this is exactly what it will do."""

    job_id: str
    """Names the job, as in `watch`, `get` and `cancel`."""
    options: TransferOptions
    """The options with every default filled in."""
    output: OutputOptions
    """The output options with every default filled in."""
    weights: Weights
    """The network that is used."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    estimate: CostEstimate
    """What the job is expected to cost."""


@dataclass(frozen=True, kw_only=True)
class Queued(_Sequenced):
    """The job waits for a device."""

    position: int
    """Jobs ahead in the queue, not counting those that run. One that is much shorter than those starts before them."""
    eta_seconds: float
    """Expected seconds until the job starts."""


@dataclass(frozen=True, kw_only=True)
class Started(_Sequenced):
    """The job has a device."""

    device: str
    """The device: "cpu", "cuda:0" ..."""
    queued_seconds: float
    """Seconds from acceptance to now."""


@dataclass(frozen=True, kw_only=True)
class Preparing(_Sequenced):
    """How far the targets of a scale are computed, before its first iteration."""

    scale: int
    """The scale being worked on, 1 to `scales`, coarse to fine."""
    scales: int
    """Number of scales."""
    part: int
    """Parts done."""
    parts: int
    """Parts of this scale: one for each picture, or as many as it has tiles."""


@dataclass(frozen=True, kw_only=True)
class Reduced(_Sequenced):
    """Memory ran out: the job goes on at a smaller size from the best picture so far, as `min_image_size` allows."""

    width: int
    """Width of the result from now on, in pixels."""
    height: int
    """Height of the result from now on, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Progress(_Sequenced):
    """Where the optimisation stands."""

    scale: int
    """The scale being worked on, 1 to `scales`, coarse to fine."""
    scales: int
    """Number of scales."""
    iteration: int
    """Iterations done, over all scales."""
    total_iterations: int
    """Iterations that the job will do, over all scales."""
    total_loss: float
    """The objective at this iteration: the sum of all terms."""
    terms: tuple[LossTerm, ...]
    """Every term of the objective."""
    elapsed_seconds: float
    """Seconds since the first iteration began, turns of other jobs on the device included."""
    eta_seconds: float
    """Expected seconds until the last iteration, turns of the jobs that share the device now included."""


@dataclass(frozen=True, kw_only=True)
class Preview(_Sequenced):
    """A small picture of the work in progress; asked for by `TransferOptions.preview_every`."""

    iteration: int
    """The iteration that it shows."""
    media_type: str
    """Always "image/jpeg"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    data: bytes = field(repr=False)
    """The encoded file."""


@dataclass(frozen=True, kw_only=True)
class Completed(_Sequenced):
    """The job is done and its picture has arrived whole."""

    stop_reason: StopReason
    """Why the optimisation ended."""
    iterations: int
    """Iterations done."""
    total_loss: float
    """The objective of the picture."""
    terms: tuple[LossTerm, ...]
    """Every term of the objective of the picture."""
    timings: Timings
    """Where the time went."""
    weights: Weights
    """The network that was used."""


@dataclass(frozen=True, kw_only=True)
class Reconnected(_Sequenced):
    """The connection was lost, or the server has restarted, and the client follows the job again.

    Of the client itself: its `sequence` is that of the event before. What follows may repeat the work since the job's
    last checkpoint: another `Started`, and `Progress` that goes on from there.
    """

    attempts: int
    """Calls that it took, the one that succeeded included."""
    seconds: float
    """Without contact."""
    began_anew: bool
    """Whether the server had kept nothing of the job, which therefore begins again: `Accepted` follows, with another
    `job_id`, and events are numbered afresh (`sequence` is 0 here)."""


Event = Accepted | Queued | Started | Preparing | Reduced | Progress | Preview | Completed | Reconnected
"""Accepted comes first and Completed last; a later version may add kinds."""
