"""The translation between the messages of the contract and the types of the client, without any decision."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb

from nst_client.errors import InvalidRequestError
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
    Reduced,
    Started,
    StopReason,
    Timings,
    Weights,
)
from nst_client.fields import StylizeFields, check_fields, spell_out
from nst_client.files import read_picture, read_styles
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
    StyleLoss,
    Styles,
    TransferOptions,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_E = TypeVar("_E", bound=StrEnum)
_D = TypeVar("_D", bound="DataclassInstance")

_ENUMS: Mapping[type[StrEnum], tuple[Any, str]] = MappingProxyType(
    {
        Optimizer: (pb.Optimizer, "OPTIMIZER_"),
        Init: (pb.Init, "INIT_"),
        Preset: (pb.Preset, "PRESET_"),
        StyleLoss: (pb.StyleLoss, "STYLE_LOSS_"),
        Pooling: (pb.Pooling, "POOLING_"),
        Padding: (pb.Padding, "PADDING_"),
        ColorMode: (pb.ColorMode, "COLOR_MODE_"),
        PictureFormat: (pb.PictureFormat, "PICTURE_FORMAT_"),
        LossKind: (pb.LossKind, "LOSS_KIND_"),
        StopReason: (pb.StopReason, "STOP_REASON_"),
        JobState: (pb.JobState, "JOB_STATE_"),
        DisconnectPolicy: (pb.DisconnectPolicy, "DISCONNECT_POLICY_"),
        Health: (health_pb2.HealthCheckResponse.ServingStatus, ""),
    }
)
"""For each enum of the client, the enum of the contract and the prefix of its values."""

_ENUM_FIELDS: Mapping[str, type[StrEnum]] = MappingProxyType(
    {
        "preset": Preset,
        "optimizer": Optimizer,
        "init": Init,
        "style_loss": StyleLoss,
        "pooling": Pooling,
        "padding": Padding,
        "color": ColorMode,
        "format": PictureFormat,
    }
)
_LAYER_FIELDS = frozenset({"content_layers", "style_layers"})

_LIST_FIELDS = frozenset({"scale_iterations"})

_PICTURE_FIELDS = ("content_mask", "init_picture", "reference", "reference_mask")

_ACCEPTED_TYPES = MappingProxyType(
    {
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_DOUBLE: "a number",
        FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
        FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
        FieldDescriptor.CPPTYPE_STRING: "text",
    }
)

_STATUS_CODES = MappingProxyType({code.value[0]: code for code in grpc.StatusCode})


@spell_out(StylizeFields)
def request_to_proto(content: Picture, styles: Styles, **fields: Unpack[StylizeFields]) -> pb.StylizeRequest:
    """Build a request. Files are read; a field that is left out or None stays unset.

    Args:
        content: the picture whose content is kept.
        styles: the style, or several that are blended.
        **fields: see `StylizeFields`.

    Raises:
        InvalidRequestError: a file cannot be read, or a value has a type that its field cannot hold. The server checks
            the ranges.
        TypeError: there is no such field.
    """
    check_fields(request_to_proto, fields)
    request = pb.StylizeRequest(content=_picture("content", content))
    for index, style in enumerate(read_styles(styles)):
        path = f"styles[{index}]"
        message = request.styles.add(picture=_picture(f"{path}.picture", style.picture))
        _set_scalar(message, path, "weight", style.weight)
        _set_scalar(message, path, "scale", style.scale)
        if style.mask is not None:
            message.mask.CopyFrom(_picture(f"{path}.mask", style.mask))
    for name in _PICTURE_FIELDS:
        picture = cast("Picture | None", fields.get(name))
        if picture is not None:
            getattr(request, name).CopyFrom(_picture(name, picture))
    options, output = fields.get("options"), fields.get("output")
    if options is not None:
        request.options.CopyFrom(_options_to_proto(pb.TransferOptions(), "options", options))
    if output is not None:
        request.output.CopyFrom(_options_to_proto(pb.OutputOptions(), "output", output))
    request_id = fields.get("request_id")
    if request_id == "":
        # The contract reads an empty id as none.
        raise InvalidRequestError.of("request_id", "is empty, accepted are 1 to 128 printable ASCII characters")
    _set_scalar(request, "", "request_id", request_id)
    if fields.get("keep_running"):
        request.disconnect_policy = pb.DISCONNECT_POLICY_KEEP_RUNNING
    return request


def list_to_proto(states: Iterable[str], page_size: int | None) -> pb.ListJobsRequest:
    """Build the request for the first page of jobs.

    Raises:
        InvalidRequestError: a state does not exist, or a value has a type that its field cannot hold.
    """
    request = pb.ListJobsRequest()
    numbers: Any = [_enum_to_proto("states", JobState, state) for state in states]
    request.states.extend(numbers)
    _set_scalar(request, "", "page_size", page_size)
    return request


def one_id(job_id: str | None, request_id: str | None) -> dict[str, str]:
    """Return the one id that names a job, with the name of its field.

    Raises:
        InvalidRequestError: neither or both ids are given.
    """
    given = {name: value for name, value in (("job_id", job_id), ("request_id", request_id)) if value is not None}
    if len(given) != 1:
        both = "are both given" if given else "are both missing"
        raise InvalidRequestError.of("job_id", f"and request_id {both}, accepted is one of them")
    return given


def watch_to_proto(job_id: str | None, request_id: str | None, after_sequence: int) -> pb.WatchJobRequest:
    """Build the request to watch a job.

    Raises:
        InvalidRequestError: neither or both ids are given, or `after_sequence` is given without a `job_id`.
    """
    if after_sequence and job_id is None:
        # Only the first event, Accepted, tells which job it is.
        raise InvalidRequestError.of("after_sequence", f"is {after_sequence}, accepted without a job_id is 0")
    return pb.WatchJobRequest(**one_id(job_id, request_id), after_sequence=after_sequence)


_M = TypeVar("_M", pb.TransferOptions, pb.OutputOptions)


def _options_to_proto(message: _M, path: str, options: TransferOptions | OutputOptions) -> _M:
    for field in dataclasses.fields(options):
        name, value = field.name, getattr(options, field.name)
        if value is None:
            continue
        if name in _LAYER_FIELDS:
            getattr(message, name).extend(_layers_to_proto(f"{path}.{name}", value))
        elif name in _LIST_FIELDS:
            _set_list(message, path, name, value)
        elif name in _ENUM_FIELDS:
            setattr(message, name, _enum_to_proto(f"{path}.{name}", _ENUM_FIELDS[name], value))
        else:
            _set_scalar(message, path, name, value)
    return message


def _picture(field: str, picture: Picture) -> pb.Picture:
    return pb.Picture(data=read_picture(field, picture))


def _set_scalar(message: Message, path: str, name: str, value: float | str | None) -> None:
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        accepted = _ACCEPTED_TYPES[message.DESCRIPTOR.fields_by_name[name].cpp_type]
        field = f"{path}.{name}" if path else name
        raise InvalidRequestError.of(field, f"is {value!r}, accepted is {accepted}") from error


def _set_list(message: Message, path: str, name: str, values: Sequence[int]) -> None:
    try:
        getattr(message, name).extend(values)
    except (TypeError, ValueError) as error:
        accepted = "a sequence of whole numbers of 32 bits"
        raise InvalidRequestError.of(f"{path}.{name}", f"is {values!r}, accepted is {accepted}") from error


def _enum_to_proto(field: str, kind: type[StrEnum], value: str) -> int:
    wrapper, prefix = _ENUMS[kind]
    try:
        return int(wrapper.Value(prefix + kind(value).upper()))
    except ValueError as error:
        accepted = ", ".join(name.lower() for name in kind.__members__ if prefix + name in set(wrapper.keys()))
        raise InvalidRequestError.of(field, f"is {value!r}, accepted are {accepted}") from error


def _layers_to_proto(field: str, layers: Layers) -> Iterable[pb.LayerWeight]:
    if isinstance(layers, str):
        raise InvalidRequestError.of(field, f"is the string {layers!r}, accepted are names in a sequence or a mapping")
    weights = layers if isinstance(layers, Mapping) else dict.fromkeys(layers)
    for layer, weight in weights.items():
        message = pb.LayerWeight()
        try:
            message.layer = layer
        except TypeError as error:
            raise InvalidRequestError.of(field, f"has the layer {layer!r}, accepted are names") from error
        _set_scalar(message, f"{field}[{layer!r}]", "weight", weight)
        yield message


def event_from_proto(message: pb.JobEvent) -> Event | None:
    """Translate an event.

    Returns:
        The event; None for a part of the picture and for a kind that this version does not know.
    """
    sequence = message.sequence
    match message.WhichOneof("event"):
        case "accepted":
            return _accepted_from_proto(message.accepted, sequence)
        case "queued":
            return _from_proto(Queued, message.queued, sequence=sequence)
        case "started":
            return _from_proto(Started, message.started, sequence=sequence)
        case "preparing":
            return _from_proto(Preparing, message.preparing, sequence=sequence)
        case "reduced":
            return _from_proto(Reduced, message.reduced, sequence=sequence)
        case "progress":
            return _progress_from_proto(message.progress, sequence)
        case "preview":
            return _from_proto(Preview, message.preview, sequence=sequence)
        case "completed":
            return _completed_from_proto(message.completed, sequence)
        case _:
            return None


def _accepted_from_proto(message: pb.Accepted, sequence: int) -> Accepted:
    return _from_proto(
        Accepted,
        message,
        sequence=sequence,
        options=options_from_proto(message.options),
        output=output_from_proto(message.output),
        weights=_from_proto(Weights, message.weights),
        estimate=_from_proto(CostEstimate, message.estimate),
    )


def _progress_from_proto(message: pb.Progress, sequence: int) -> Progress:
    return _from_proto(Progress, message, sequence=sequence, terms=_terms_from_proto(message.terms))


def _completed_from_proto(message: pb.Completed, sequence: int) -> Completed:
    return _from_proto(
        Completed,
        message,
        sequence=sequence,
        stop_reason=known_enum_from_proto(StopReason, message.stop_reason),
        terms=_terms_from_proto(message.terms),
        timings=_from_proto(Timings, message.timings),
        weights=_from_proto(Weights, message.weights),
    )


def _terms_from_proto(terms: Iterable[pb.LossTerm]) -> tuple[LossTerm, ...]:
    return tuple(_from_proto(LossTerm, term, kind=known_enum_from_proto(LossKind, term.kind)) for term in terms)


def job_from_proto(message: pb.Job) -> Job:
    """Translate the description of a job."""
    return _from_proto(
        Job,
        message,
        state=known_enum_from_proto(JobState, message.state),
        disconnect_policy=known_enum_from_proto(DisconnectPolicy, message.disconnect_policy),
        create_time=message.create_time.ToDatetime(UTC),
        end_time=message.end_time.ToDatetime(UTC) if message.HasField("end_time") else None,
        accepted=_accepted_from_proto(message.accepted, 0),
        progress=_progress_from_proto(message.progress, 0) if message.HasField("progress") else None,
        result=_from_proto(ResultHeader, message.result) if message.HasField("result") else None,
        completed=_completed_from_proto(message.completed, 0) if message.HasField("completed") else None,
        failure=_failure_from_proto(message.failure) if message.HasField("failure") else None,
    )


def _failure_from_proto(message: pb.JobFailure) -> JobFailure:
    return _from_proto(JobFailure, message, code=_STATUS_CODES.get(message.code, grpc.StatusCode.UNKNOWN))


def estimate_from_proto(message: pb.EstimateResponse) -> Estimate:
    """Translate the estimate of a stylisation."""
    return _from_proto(
        Estimate,
        message,
        options=options_from_proto(message.options),
        output=output_from_proto(message.output),
        cost=_from_proto(CostEstimate, message.estimate),
    )


def info_from_proto(message: pb.GetServerInfoResponse) -> ServerInfo:
    """Translate the description of a server."""
    return _from_proto(
        ServerInfo,
        message,
        weights=_from_proto(Weights, message.weights),
        devices=tuple(message.devices),
        default_options=options_from_proto(message.default_options),
        presets=tuple(options_from_proto(preset) for preset in message.presets),
        default_output=output_from_proto(message.default_output),
        layers=tuple(message.layers),
        input_media_types=tuple(message.input_media_types),
        limits=_from_proto(Limits, message.limits),
    )


def _from_proto(kind: type[_D], message: Message, /, **fields: Any) -> _D:
    """Build a dataclass from these fields and, for every other field, from the one of the same name in the message."""
    names = (field.name for field in dataclasses.fields(kind))
    return kind(**fields, **{name: getattr(message, name) for name in names if name not in fields})


def options_from_proto(message: pb.TransferOptions) -> TransferOptions:
    """Translate options. An option that is unset becomes None."""
    return TransferOptions(
        **_set_scalars(message),
        **_set_enums(message),
        **_set_layers(message),
        scale_iterations=tuple(message.scale_iterations),
    )


def output_from_proto(message: pb.OutputOptions) -> OutputOptions:
    """Translate output options. An option that is unset becomes None."""
    return OutputOptions(**_set_scalars(message), **_set_enums(message))


def enum_from_proto(kind: type[_E], number: int) -> _E | None:
    """Translate a value of any enum of the contract; None if it is unset or unknown to this version."""
    wrapper, prefix = _ENUMS[kind]
    try:
        return kind(wrapper.Name(number).removeprefix(prefix).lower())
    except ValueError:
        return None


def known_enum_from_proto(kind: type[_E], number: int) -> _E:
    """Translate a value of an enum with a member UNKNOWN, which stands for values that are unset or unknown."""
    return enum_from_proto(kind, number) or kind("unknown")


def _set_scalars(message: Message) -> dict[str, Any]:
    """Return the `optional` scalars that are set, by their names."""
    return {
        field.name: value for field, value in message.ListFields() if field.has_presence and field.message_type is None
    }


def _set_enums(message: Message) -> dict[str, Any]:
    return {
        name: enum_from_proto(kind, getattr(message, name))
        for name, kind in _ENUM_FIELDS.items()
        if name in message.DESCRIPTOR.fields_by_name
    }


def _set_layers(message: Message) -> dict[str, Any]:
    return {
        name: {entry.layer: entry.weight if entry.HasField("weight") else None for entry in getattr(message, name)}
        for name in _LAYER_FIELDS
    }
