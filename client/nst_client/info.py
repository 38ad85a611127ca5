"""The description of a server and of its jobs."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import grpc

from nst_client.events import Accepted, Completed, Progress, Weights
from nst_client.options import OutputOptions, TransferOptions


class JobState(StrEnum):
    """The state of a job."""

    UNKNOWN = "unknown"
    """A state that this version of the client does not know."""
    QUEUED = "queued"
    """The job waits for a device."""
    RUNNING = "running"
    """The job runs on a device."""
    SUCCEEDED = "succeeded"
    """The job ended with a picture."""
    CANCELLED = "cancelled"
    """The job was cancelled."""
    FAILED = "failed"
    """The job ended with an error."""


class DisconnectPolicy(StrEnum):
    """What happens to a running job that nobody follows any more."""

    UNKNOWN = "unknown"
    """A policy that this version of the client does not know."""
    CANCEL = "cancel"
    """The job is cancelled after `Limits.reattach_seconds`."""
    KEEP_RUNNING = "keep_running"
    """The job continues to its end, and its result is kept."""


@dataclass(frozen=True, kw_only=True)
class ResultHeader:
    """A finished picture, without its bytes."""

    media_type: str
    """The media type, such as "image/png"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    size_bytes: int
    """Size of the encoded file in bytes."""
    sha256: str
    """SHA-256 of the encoded file, lower-case hex."""


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """The reason why a job ended without a picture, which is also the status of every call that follows it."""

    code: grpc.StatusCode
    """The gRPC status code."""
    message: str
    """A description for people."""
    reason: str
    """A reason for programs, such as "LOSS_NOT_FINITE"; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The description of a job."""

    job_id: str
    """The id of the job, which `watch`, `get` and `cancel` take."""
    request_id: str
    """The id of the request; empty if it had none."""
    state: JobState
    """The state of the job."""
    disconnect_policy: DisconnectPolicy
    """What happens to the job when nobody follows it."""
    create_time: datetime
    """The time when the job was accepted, in UTC."""
    end_time: datetime | None
    """The time when the job ended, in UTC; None before that."""
    accepted: Accepted
    """The event `Accepted` of the job: its options and expected cost."""
    progress: Progress | None
    """The latest progress; None unless the job runs and has begun to optimise."""
    result: ResultHeader | None
    """The description of the picture, which `watch` fetches; None if there is none."""
    completed: Completed | None
    """The event `Completed` of the job; None if there is no picture."""
    failure: JobFailure | None
    """The reason why the job ended without a picture; None if it did not."""
    width: int
    """Width of the result in pixels. It is less than that of `accepted` once the job continues at a smaller size."""
    height: int
    """Height of the result in pixels."""


class Health(StrEnum):
    """Whether a server accepts jobs."""

    UNKNOWN = "unknown"
    """The server does not say."""
    SERVING = "serving"
    """The server accepts jobs."""
    NOT_SERVING = "not_serving"
    """The server is warming up or draining."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a server. It refuses requests that exceed them."""

    max_request_bytes: int
    """Largest size of one request in bytes."""
    max_input_pixels: int
    """Largest width times height of one picture in a request."""
    max_image_size: int
    """Longest edge of a result in pixels."""
    max_iterations: int
    """Most iterations of one job."""
    max_styles: int
    """Most styles in one request."""
    max_queued_jobs: int
    """Most jobs that may wait in the queue."""
    reattach_seconds: float
    """Seconds for which a job continues that nobody follows, unless it was started with `keep_running`."""
    retention_seconds: float
    """Seconds for which a job is kept after its end. The oldest jobs are removed earlier if the store is full."""


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """The description of a server."""

    version: str
    """The version of nst."""
    weights: Weights
    """The weights in use."""
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
    """The limits of the server."""
    queued_jobs: int
    """Jobs that wait."""
    running_jobs: int
    """Jobs that run."""
