"""What a server says about itself and its jobs."""

from dataclasses import dataclass
from enum import StrEnum

from nst_client.events import Weights
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
