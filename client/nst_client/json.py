"""Events and descriptions as JSON, one object a line.

Gateways import this module: it needs nothing beyond the client itself, neither click nor rich.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc

from nst_client.events import Event, Preview

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def to_json(value: "DataclassInstance | Mapping[str, Any]") -> str:
    """Return a dataclass or a mapping as a JSON object on one line, with null for numbers that are not finite."""
    fields = value if isinstance(value, Mapping) else dataclasses.asdict(value)
    return json.dumps(_json_value(fields))


def event_to_json(event: Event) -> str:
    """Return an event as a JSON object on one line.

    The key `event` names the kind of the event. A preview has the key `size_bytes` in place of its bytes.
    """
    fields = {"event": type(event).__name__.lower()} | dataclasses.asdict(event)
    if isinstance(event, Preview):
        fields["size_bytes"] = len(fields.pop("data"))
    return to_json(fields)


def _json_value(value: Any) -> Any:
    """Return the value in the types that JSON has."""
    match value:
        case Mapping():
            return {key: _json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [_json_value(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case datetime():
            return value.isoformat()
        case grpc.StatusCode():
            return value.name
        case _:
            return value
