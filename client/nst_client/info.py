"""What a server says about itself and its jobs."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import grpc

from nst_client.events import Accepted, Completed, Progress, Weights
from nst_client.options import OutputOptions, TransferOptions


class JobState(StrEnum):
    """The life of a job."""

    UNKNOWN = "unknown"
    """One that this version of the client does not know."""
    QUEUED = "queued"
    """Waits for a device."""
    RUNNING = "running"
    """Is being worked on."""
    SUCCEEDED = "succeeded"
    """Ended with a picture."""
    CANCELLED = "cancelled"
    """Was cancelled."""
    FAILED = "failed"
    """Ended with an error."""


class DisconnectPolicy(StrEnum):
    """What becomes of a job that nobody follows any more, before it has ended."""

    UNKNOWN = "unknown"
    """One that this version of the client does not know."""
    CANCEL = "cancel"
    """It is cancelled after a while (see `Limits.reattach_seconds`)."""
    KEEP_RUNNING = "keep_running"
    """It goes on to its end, and its result is kept."""


@dataclass(frozen=True, kw_only=True)
class ResultHeader:
    """A finished picture, without its bytes."""

    media_type: str
    """"image/png", "image/jpeg", "image/webp" or "image/tiff"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    size_bytes: int
    """Size of the encoded file."""
    sha256: str
    """SHA-256 of the encoded file, lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """Why a job ended without a picture: the status that ends whatever follows it."""

    code: grpc.StatusCode
    """The gRPC status code."""
    message: str
    """For people."""
    reason: str
    """For programs, such as "LOSS_NOT_FINITE"; empty for none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, as the server knows it."""

    job_id: str
    """Names the job in `watch`, `get` and `cancel`."""
    request_id: str
    """As the request had it; empty for none."""
    state: JobState
    """Where it is in its life."""
    disconnect_policy: DisconnectPolicy
    """What becomes of it when nobody follows it."""
    create_time: datetime
    """When it was accepted, in UTC."""
    end_time: datetime | None
    """When it ended, in UTC; None before."""
    accepted: Accepted
    """What it does."""
    progress: Progress | None
    """Where it stands, if it runs and has begun to optimise."""
    result: ResultHeader | None
    """Its picture, if it has one; `watch` fetches it."""
    completed: Completed | None
    """How it ended, if it has a picture."""
    failure: JobFailure | None
    """Why it ended without a picture."""
    width: int
    """Width of the result in pixels: less than that of `accepted` once the job goes on at a smaller size."""
    height: int
    """Height of the result in pixels."""


class Health(StrEnum):
    """Whether a server takes jobs."""

    UNKNOWN = "unknown"
    """The server does not say."""
    SERVING = "serving"
    """It does."""
    NOT_SERVING = "not_serving"
    """It is warming up or draining."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server refuses to exceed."""

    max_request_bytes: int
    """Size of one request in bytes."""
    max_input_pixels: int
    """Width times height of one picture in a request."""
    max_image_size: int
    """Longest edge of a result in pixels."""
    max_iterations: int
    """Iterations of one job."""
    max_styles: int
    """Styles in one request."""
    max_queued_jobs: int
    """Jobs that may wait."""
    reattach_seconds: float
    """Seconds for which a job goes on that nobody follows, unless it was started with `keep_running`."""
    retention_seconds: float
    """Seconds for which a job is kept after its end; the oldest go earlier where the store is full."""


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """The description of a server."""

    version: str
    """Version of nst."""
    weights: Weights
    """The network in use."""
    devices: tuple[str, ...]
    """Devices that jobs run on: "cpu", "cuda:0" ..."""
    default_options: TransferOptions
    """Every default of TransferOptions."""
    presets: tuple[TransferOptions, ...]
    """The options of every preset."""
    default_output: OutputOptions
    """Every default of OutputOptions."""
    layers: tuple[str, ...]
    """Layers that `content_layers` and `style_layers` accept."""
    input_media_types: tuple[str, ...]
    """Media types that pictures may have."""
    limits: Limits
    """What the server refuses to exceed."""
    queued_jobs: int
    """Jobs that wait."""
    running_jobs: int
    """Jobs that run."""
