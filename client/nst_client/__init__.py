"""The client of nst: neural style transfer as a service.

    from nst_client import StyleTransferClient, TransferOptions

    with StyleTransferClient("localhost:50051") as client:
        result = client.stylize("photo.jpg", "painting.jpg", options=TransferOptions(image_size=512))
        result.save("stylised.png")

`AsyncStyleTransferClient` does the same with asyncio; `stream` gives the events as they happen.
"""

from typing import Any

from nst_client.aio import AsyncStyleTransferClient, AsyncStylization
from nst_client.client import StyleTransferClient, Stylization
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
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    RequestTooLargeError,
    ResultNotReadyError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
    Violation,
)
from nst_client.events import (
    Accepted,
    Completed,
    CostEstimate,
    Estimate,
    Event,
    LossKind,
    LossTerm,
    Preparing,
    Preview,
    Progress,
    Queued,
    Started,
    StopReason,
    Timings,
    Weights,
)
from nst_client.info import Health, JobState, Limits, ServerInfo
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
    "ColorMode",
    "Completed",
    "ConnectionOptionsError",
    "CorruptResultError",
    "CostEstimate",
    "DeadlineExceededError",
    "DoesNotFitError",
    "Estimate",
    "Event",
    "Excess",
    "Health",
    "Init",
    "InternalError",
    "InvalidRequestError",
    "JobCancelledError",
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
    "Pooling",
    "Preparing",
    "Preset",
    "Preview",
    "Progress",
    "ProtocolError",
    "QueueFullError",
    "Queued",
    "QuotaExceededError",
    "RequestTooLargeError",
    "Result",
    "ResultNotReadyError",
    "ServerInfo",
    "Started",
    "StopReason",
    "Style",
    "StyleLoss",
    "StyleTransferClient",
    "Styles",
    "Stylization",
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
