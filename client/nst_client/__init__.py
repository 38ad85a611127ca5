"""The client of nst: neural style transfer as a service.

    from nst_client import StyleTransferClient, TransferOptions

    with StyleTransferClient("localhost:50051") as client:
        result = client.stylize("photo.jpg", "painting.jpg", options=TransferOptions(image_size=512))
        result.save("stylised.png")

`AsyncStyleTransferClient` does the same with asyncio. `stream` returns the events as they happen. A job survives lost
connections and restarts of the server. A job from `submit` also survives the end of the program, and `result`, `watch`,
`get` and `list_jobs` find it again.
"""

from typing import Any

from nst_client.aio import AsyncStyleTransferClient, AsyncStylization, AsyncSubmittedJob
from nst_client.client import StyleTransferClient, Stylization, SubmittedJob
from nst_client.errors import (
    ConnectionOptionsError,
    CorruptResultError,
    DeadlineExceededError,
    DoesNotFitError,
    Excess,
    InternalError,
    InvalidRequestError,
    JobCancelledError,
    JobNotFoundError,
    NstError,
    PermissionDeniedError,
    PictureNotFoundError,
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    RequestConflictError,
    RequestTooLargeError,
    ResultNotReadyError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    Violation,
)
from nst_client.events import (
    Accepted,
    Completed,
    CostEstimate,
    Disconnected,
    Estimate,
    Event,
    LossKind,
    LossTerm,
    Preparing,
    Preview,
    Progress,
    Queued,
    Reconnected,
    Reduced,
    Started,
    StopReason,
    Timings,
    Weights,
)
from nst_client.fields import EstimateFields, StylizeFields, SubmitFields
from nst_client.info import (
    DisconnectPolicy,
    Health,
    Job,
    JobFailure,
    JobState,
    Limits,
    ResultHeader,
    ServerInfo,
)
from nst_client.metadata import Metadata, read_metadata
from nst_client.options import (
    ColorMode,
    Init,
    Layers,
    Optimizer,
    OutputOptions,
    Padding,
    Picture,
    PictureFormat,
    Pooling,
    Preset,
    Style,
    StyleLoss,
    Styles,
    TransferOptions,
)
from nst_client.result import Result
from nst_client.security import Tls

__all__ = [
    "Accepted",
    "AsyncStyleTransferClient",
    "AsyncStylization",
    "AsyncSubmittedJob",
    "ColorMode",
    "Completed",
    "ConnectionOptionsError",
    "CorruptResultError",
    "CostEstimate",
    "DeadlineExceededError",
    "DisconnectPolicy",
    "Disconnected",
    "DoesNotFitError",
    "Estimate",
    "EstimateFields",
    "Event",
    "Excess",
    "Health",
    "Init",
    "InternalError",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobFailure",
    "JobNotFoundError",
    "JobState",
    "Layers",
    "Limits",
    "LossKind",
    "LossTerm",
    "Metadata",
    "NstError",
    "Optimizer",
    "OutputOptions",
    "Padding",
    "PermissionDeniedError",
    "Picture",
    "PictureFormat",
    "PictureNotFoundError",
    "Pooling",
    "Preparing",
    "Preset",
    "Preview",
    "Progress",
    "ProtocolError",
    "QueueFullError",
    "Queued",
    "QuotaExceededError",
    "Reconnected",
    "Reduced",
    "RequestConflictError",
    "RequestTooLargeError",
    "Result",
    "ResultHeader",
    "ResultNotReadyError",
    "ServerInfo",
    "Started",
    "StopReason",
    "StoreError",
    "Style",
    "StyleLoss",
    "StyleTransferClient",
    "Styles",
    "Stylization",
    "StylizeFields",
    "SubmitFields",
    "SubmittedJob",
    "Timings",
    "Tls",
    "TransferOptions",
    "UnauthenticatedError",
    "UnavailableError",
    "UnsupportedError",
    "Violation",
    "Weights",
    "__version__",
    "read_metadata",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("nst-stylize")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
