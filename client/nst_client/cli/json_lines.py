"""Events and descriptions as JSON, one object a line."""

import dataclasses
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc

from nst_client.events import Event, Preview
from nst_client.result import Result


def to_json(value: Any) -> str:
    """Return a dataclass as a JSON object on one line."""
    return json.dumps(_plain(dataclasses.asdict(value)))


def event_to_json(event: Event) -> str:
    """Return an event as a JSON object on one line; `event` names its kind, and previews have their size only."""
    values = {"event": type(event).__name__.lower()} | dataclasses.asdict(event)
    if isinstance(event, Preview):
        values["size_bytes"] = len(values.pop("data"))
    return json.dumps(_plain(values))


def result_to_json(path: Path, result: Result) -> str:
    """Return what was saved as a JSON object on one line."""
    return json.dumps(
        {
            "event": "saved",
            "path": str(path),
            "media_type": result.media_type,
            "width": result.width,
            "height": result.height,
            "size_bytes": len(result.data),
            "sha256": result.sha256,
        }
    )


def position_to_json(position: Any) -> str:
    """Return the frame that the next events are about as a JSON object on one line."""
    return json.dumps(_plain({"event": "frame"} | dataclasses.asdict(position)))


def _plain(value: Any) -> Any:
    """Return the value as JSON can say it, with null for numbers that are not finite."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case datetime():
            return value.isoformat()
        case grpc.StatusCode():
            return value.name
        case _:
            return value
