"""The translation of single fields: enums, and scalars that have the same name on both sides."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf.message import Message
from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.choices import (
    ColorMode,
    Init,
    OptimizerKind,
    OutputFormat,
    Padding,
    Pooling,
    Preset,
    StyleStatisticKind,
)
from nst_service.engine.objective.losses import LossKind
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy

_ENUMS: Mapping[type[StrEnum], tuple[Any, str]] = MappingProxyType(
    {
        OptimizerKind: (pb.Optimizer, "OPTIMIZER_"),
        Init: (pb.Init, "INIT_"),
        Preset: (pb.Preset, "PRESET_"),
        StyleStatisticKind: (pb.StyleLoss, "STYLE_LOSS_"),
        Pooling: (pb.Pooling, "POOLING_"),
        Padding: (pb.Padding, "PADDING_"),
        ColorMode: (pb.ColorMode, "COLOR_MODE_"),
        OutputFormat: (pb.PictureFormat, "PICTURE_FORMAT_"),
        LossKind: (pb.LossKind, "LOSS_KIND_"),
        JobState: (pb.JobState, "JOB_STATE_"),
        StopReason: (pb.StopReason, "STOP_REASON_"),
        DisconnectPolicy: (pb.DisconnectPolicy, "DISCONNECT_POLICY_"),
    }
)
"""The enum of the contract for each of our enums, and the prefix of its values."""

OPTION_ENUMS: Mapping[str, type[StrEnum]] = MappingProxyType(
    {
        "optimizer": OptimizerKind,
        "init": Init,
        "style_loss": StyleStatisticKind,
        "pooling": Pooling,
        "padding": Padding,
        "color": ColorMode,
    }
)
"""The fields of TransferOptions that are enums, without the preset."""

_Enum = TypeVar("_Enum", bound=StrEnum)


def enum_to_proto(value: StrEnum) -> Any:
    """Return the number of an enum value in the contract."""
    wrapper, prefix = _ENUMS[type(value)]
    return wrapper.Value(prefix + value.upper())


def enum_from_proto(kind: type[_Enum], number: int) -> _Enum:
    """Return the enum value for a number that the enum of the contract has."""
    wrapper, prefix = _ENUMS[kind]
    return kind(wrapper.Name(number).removeprefix(prefix).lower())


def enum_problem(kind: type[StrEnum], number: int) -> str | None:
    """Return what is wrong with the number of an enum; None if the enum of the contract has it. 0 is never accepted."""
    wrapper, _ = _ENUMS[kind]
    if number and number in wrapper.values():
        return None
    accepted = ", ".join(name for name, value in wrapper.items() if value)
    return f"is {number}; accepted values are {accepted}"


def scalars_from_proto(message: Message) -> dict[str, Any]:
    """Return the values of the scalar fields that are set, by their names."""
    return {name: getattr(message, name) for name in _scalar_names(type(message)) if message.HasField(name)}


def scalars_to_proto(kind: type[Message], values: object) -> dict[str, Any]:
    """Return the values of the scalar fields of a message, by their names. Fields that are None are left out."""
    return {name: value for name in _scalar_names(kind) if (value := getattr(values, name)) is not None}


def _scalar_names(kind: type[Message]) -> list[str]:
    """Return the names of the `optional` scalar fields. Our types have the same names."""
    return [field.name for field in kind.DESCRIPTOR.fields if field.has_presence and field.message_type is None]
