"""The events of a job."""

from dataclasses import dataclass, field
from enum import StrEnum

from nst_client.options import OutputOptions, TransferOptions


class LossKind(StrEnum):
    """The kind of a loss."""

    UNKNOWN = "unknown"
    """A loss that this version of the client does not know."""
    CONTENT = "content"
    """The mean squared difference of features."""
    STYLE = "style"
    """The difference of the style statistic."""
    TOTAL_VARIATION = "total_variation"
    """The total variation of the picture."""
    LAPLACIAN = "laplacian"
    """The mean squared difference of the Laplacian from that of the content."""
    TEMPORAL = "temporal"
    """The mean squared difference from the reference."""


class StopReason(StrEnum):
    """The reason why an optimisation ended."""

    UNKNOWN = "unknown"
    """A reason that this version of the client does not know."""
    ITERATIONS = "iterations"
    """All iterations were done."""
    CANCELLED = "cancelled"
    """The job was cancelled. The picture is the best one so far."""
    DEADLINE = "deadline"
    """The timeout was near. The picture is the best one so far."""
    SHUTDOWN = "shutdown"
    """The server shut down. The picture is the best one so far."""
    CONVERGED = "converged"
    """The loss no longer fell by `min_improvement`."""
    TIME_BUDGET = "time_budget"
    """The time budget was spent."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A set of weights of VGG-19."""

    id: str
    """The source of the weights: "caffe", "torchvision" or the name of a file."""
    sha256: str
    """The SHA-256 of the file that the weights come from, in lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The expected cost of a job."""

    seconds: float
    """Seconds on the device, excluding the wait in the queue and the turns of other jobs."""
    queue_seconds: float
    """Seconds in the queue."""
    peak_memory_bytes: int
    """Peak memory of the job on its device in bytes."""
    tile_size: int
    """Edge in pixels of the tiles in which the picture is processed; 0 if it is processed as a whole."""
    reduced_from: int
    """Longest edge in pixels that was asked for, if the result is smaller because memory is short (see
    `TransferOptions.min_image_size`); 0 if the result is as large as asked for."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The effective options and the expected cost of a stylisation."""

    options: TransferOptions
    """The options with every default filled in."""
    output: OutputOptions
    """The output options with every default filled in."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    cost: CostEstimate
    """The expected cost."""


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of the objective."""

    kind: LossKind
    """The loss."""
    layer: str
    """The layer of VGG-19; empty for losses on pixels."""
    value: float
    """The value, including all weights."""


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The time that each phase of a job took, in seconds."""

    queued_seconds: float
    """The wait in the queue, from acceptance to start."""
    targets_seconds: float
    """The preparation, from start to the first iteration."""
    optimize_seconds: float
    """The iterations, including the turns of other jobs between them."""
    encode_seconds: float
    """The encoding of the picture."""


@dataclass(frozen=True, kw_only=True)
class _Sequenced:
    """The part that all events have in common."""

    sequence: int
    """The number of the event. It grows from event to event of a job, not always by one. In a `Job` it is 0."""


@dataclass(frozen=True, kw_only=True)
class Accepted(_Sequenced):
    """The job was accepted. The event tells exactly what the job will do."""

    job_id: str
    """The id of the job, which `watch`, `get` and `cancel` take."""
    options: TransferOptions
    """The options with every default filled in."""
    output: OutputOptions
    """The output options with every default filled in."""
    weights: Weights
    """The weights that are used."""
    width: int
    """Width of the result in pixels."""
    height: int
    """Height of the result in pixels."""
    estimate: CostEstimate
    """The expected cost of the job."""


@dataclass(frozen=True, kw_only=True)
class Queued(_Sequenced):
    """The job waits for a device."""

    position: int
    """Jobs ahead in the queue, excluding running jobs. A job that is much shorter than these starts before them."""
    eta_seconds: float
    """Expected seconds until the job starts."""


@dataclass(frozen=True, kw_only=True)
class Started(_Sequenced):
    """The job has started on a device."""

    device: str
    """The device: "cpu", "cuda:0" ..."""
    queued_seconds: float
    """Seconds from acceptance to this event."""


@dataclass(frozen=True, kw_only=True)
class Preparing(_Sequenced):
    """The targets of a scale are being computed, before its first iteration."""

    scale: int
    """The scale being worked on, 1 to `scales`, coarse to fine."""
    scales: int
    """Number of scales."""
    part: int
    """Parts that are done."""
    parts: int
    """Parts of this scale: one for each picture, or one for each of its tiles."""


@dataclass(frozen=True, kw_only=True)
class Reduced(_Sequenced):
    """Memory ran out. The job continues at a smaller size from the best picture so far, as `min_image_size` allows."""

    width: int
    """Width of the result from now on, in pixels."""
    height: int
    """Height of the result from now on, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Progress(_Sequenced):
    """The state of the optimisation."""

    scale: int
    """The scale being worked on, 1 to `scales`, coarse to fine."""
    scales: int
    """Number of scales."""
    iteration: int
    """Iterations that are done, over all scales."""
    total_iterations: int
    """Iterations that the job will do, over all scales."""
    total_loss: float
    """The objective at this iteration: the sum of all terms."""
    terms: tuple[LossTerm, ...]
    """Every term of the objective."""
    elapsed_seconds: float
    """Seconds since the first iteration began, including turns of other jobs on the device."""
    eta_seconds: float
    """Expected seconds until the last iteration, including turns of the jobs that share the device now."""


@dataclass(frozen=True, kw_only=True)
class Preview(_Sequenced):
    """A small picture of the work in progress. `TransferOptions.preview_every` asks for it."""

    iteration: int
    """The iteration that the picture shows."""
    media_type: str
    """The media type, always "image/jpeg"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    data: bytes = field(repr=False)
    """The encoded file."""


@dataclass(frozen=True, kw_only=True)
class Completed(_Sequenced):
    """The job is done and its picture has arrived completely."""

    stop_reason: StopReason
    """The reason why the optimisation ended."""
    iterations: int
    """Iterations that were done."""
    total_loss: float
    """The objective of the picture."""
    terms: tuple[LossTerm, ...]
    """Every term of the objective of the picture."""
    timings: Timings
    """The time that each phase took."""
    weights: Weights
    """The weights that were used."""


@dataclass(frozen=True, kw_only=True)
class Reconnected(_Sequenced):
    """The client follows the job again after a lost connection or a restart of the server.

    The client creates this event itself; its `sequence` is that of the event before. The following events may repeat
    the work since the last checkpoint of the job: another `Started`, and `Progress` from there on.
    """

    attempts: int
    """Calls that were needed, including the one that succeeded."""
    seconds: float
    """Seconds without contact."""
    began_anew: bool
    """Whether the server had kept nothing of the job, which therefore starts again. If so, `Accepted` follows with
    another `job_id`, and events are numbered from the beginning (`sequence` is 0 here)."""


@dataclass(frozen=True, kw_only=True)
class Disconnected:
    """The loss of a server that worked on a job. The client looks for it from now on.

    This is no event of the iterator, since it does not come from the job: see `on_disconnect` of the client.
    """

    job_id: str | None
    """The id of the job; None if it was not accepted yet."""
    message: str
    """What happened to the connection."""
    reconnect_seconds: float
    """Seconds for which the client looks for the server."""


Event = Accepted | Queued | Started | Preparing | Reduced | Progress | Preview | Completed | Reconnected
"""Any event of a job. Accepted comes first and Completed last. A later version may add kinds."""
