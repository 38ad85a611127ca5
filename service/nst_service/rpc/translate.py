"""Translates between the messages of the contract and the types of engine and jobs, field by field; decides nothing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar, assert_never

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
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
from nst_service.engine.errors import InvalidRequestError, Violation
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.losses import LossKind, Term
from nst_service.engine.options import DEFAULT_PRESET, Limits, OutputOptions, StyleOptions, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest
from nst_service.jobs import events
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.views import Durability, JobView
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy

_ENUMS: Mapping[type[StrEnum], tuple[Any, str]] = {
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
"""The enum of the contract for each of ours, and the prefix of its values."""

_OPTION_ENUMS: Mapping[str, type[StrEnum]] = {
    "optimizer": OptimizerKind,
    "init": Init,
    "style_loss": StyleStatisticKind,
    "pooling": Pooling,
    "padding": Padding,
    "color": ColorMode,
}
"""The options of a transfer that are enums, beside its preset."""

_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 1000
_PAGE_TOKEN = re.compile(r"[0-9]{1,18}")

_Enum = TypeVar("_Enum", bound=StrEnum)

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_from_proto(request: pb.StylizeRequest, pictures: Mapping[str, bytes]) -> TransferRequest:
    """Translate a request; an unset field becomes the default.

    Args:
        request: names its pictures by their SHA-256.
        pictures: the encoded pictures by their SHA-256.

    Raises:
        InvalidRequestError: a picture is missing, an enum has no such value, or a layer is named twice.
    """
    return _RequestReader(request, pictures).read()


class _RequestReader:
    """Reads a request and collects a violation for every field that cannot be translated."""

    def __init__(self, request: pb.StylizeRequest, pictures: Mapping[str, bytes]):
        self._request = request
        self._pictures = pictures
        self._violations: list[Violation] = []

    def read(self) -> TransferRequest:
        request = self._request
        translated = TransferRequest(
            content=self._picture("content", request, "content"),
            styles=tuple(
                StyleInput(
                    data=self._picture(f"styles[{index}].picture", style, "picture"),
                    mask=self._optional_picture(f"styles[{index}].mask", style, "mask"),
                    options=StyleOptions(**_set_scalars(style)),
                )
                for index, style in enumerate(request.styles)
            ),
            content_mask=self._optional_picture("content_mask", request, "content_mask"),
            init_picture=self._optional_picture("init_picture", request, "init_picture"),
            reference=self._optional_picture("reference", request, "reference"),
            reference_mask=self._optional_picture("reference_mask", request, "reference_mask"),
            options=self._transfer_options(),
            output=OutputOptions(
                **_set_scalars(request.output) | self._set_enum("output", request.output, "format", OutputFormat)
            ),
        )
        self._check_job()
        if self._violations:
            raise InvalidRequestError(self._violations)
        return translated

    def _check_job(self) -> None:
        request = self._request
        if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
            self._violations.append(
                Violation("request_id", "is not valid, accepted are 1 to 128 printable ASCII characters without spaces")
            )
        policy = self._set_enum("", request, "disconnect_policy", DisconnectPolicy).get("disconnect_policy")
        if policy is DisconnectPolicy.KEEP_RUNNING and not request.request_id:
            self._violations.append(
                Violation("disconnect_policy", "is DISCONNECT_POLICY_KEEP_RUNNING, which needs a request_id")
            )

    def _transfer_options(self) -> TransferOptions:
        options = self._request.options
        preset = self._set_enum("options", options, "preset", Preset).get("preset", DEFAULT_PRESET)
        values = _set_scalars(options)
        if self._request.HasField("init_picture"):
            values["init"] = Init.PICTURE
        for name, kind in _OPTION_ENUMS.items():
            values |= self._set_enum("options", options, name, kind)
        if options.scale_iterations:
            values["scale_iterations"] = tuple(options.scale_iterations)
        for name in ("content_layers", "style_layers"):
            if layers := getattr(options, name):
                values[name] = self._layers(f"options.{name}", layers)
        return TransferOptions.from_preset(preset, **values)

    def _picture(self, field: str, parent: Message, name: str) -> bytes:
        picture: pb.Picture = getattr(parent, name)
        if not picture.HasField("source"):
            self._violations.append(Violation(field, "is not set, an encoded picture or its SHA-256 is required"))
            return b""
        return self._pictures[picture.sha256]

    def _optional_picture(self, field: str, parent: Message, name: str) -> bytes | None:
        return self._picture(field, parent, name) if parent.HasField(name) else None

    def _layers(self, field: str, layers: Iterable[pb.LayerWeight]) -> dict[str, float]:
        weights: dict[str, float] = {}
        for entry in layers:
            if entry.layer in weights:
                self._violations.append(Violation(field, f"names layer {entry.layer[:32]!r} more than once"))
            weights[entry.layer] = entry.weight if entry.HasField("weight") else 1.0
        return weights

    def _set_enum(self, path: str, message: Message, name: str, kind: type[StrEnum]) -> dict[str, Any]:
        """Return the value of an enum field by the name of the field; empty if the field is not set."""
        number: int = getattr(message, name)
        wrapper, _ = _ENUMS[kind]
        if number == 0:
            return {}
        if number not in wrapper.values():
            accepted = ", ".join(wrapper.Name(value) for value in wrapper.values() if value)
            field = f"{path}.{name}" if path else name
            self._violations.append(Violation(field, f"has no value {number}, accepted are {accepted}"))
            return {}
        return {name: enum_from_proto(kind, number)}


def disconnect_policy_from_proto(request: pb.StylizeRequest) -> DisconnectPolicy:
    """Return the disconnect policy of a request that `request_from_proto` accepts."""
    number = request.disconnect_policy
    return enum_from_proto(DisconnectPolicy, number) if number else DisconnectPolicy.CANCEL


def event_to_proto(logged: LoggedEvent, model: Vgg19) -> pb.JobEvent:
    """Translate an event of a job that runs on a model."""
    message = pb.JobEvent(sequence=logged.sequence)
    match logged.event:
        case events.SerializedEvent() as event:
            message.ParseFromString(event.data)
        case events.Accepted() as event:
            message.accepted.CopyFrom(
                pb.Accepted(
                    job_id=event.job_id,
                    options=options_to_proto(event.options),
                    output=output_to_proto(event.output),
                    weights=weights_to_proto(model),
                    width=event.width,
                    height=event.height,
                    estimate=_estimate_to_proto(event.estimate),
                )
            )
        case events.Queued() as event:
            message.queued.CopyFrom(pb.Queued(position=event.position, eta_seconds=event.eta_seconds))
        case events.Started() as event:
            message.started.CopyFrom(pb.Started(device=event.device, queued_seconds=event.queued_seconds))
        case events.Preparing() as event:
            message.preparing.CopyFrom(
                pb.Preparing(scale=event.scale, scales=event.scales, part=event.part, parts=event.parts)
            )
        case events.Reduced() as event:
            message.reduced.CopyFrom(pb.Reduced(width=event.width, height=event.height))
        case events.Progress() as event:
            message.progress.CopyFrom(
                pb.Progress(
                    scale=event.scale,
                    scales=event.scales,
                    iteration=event.iteration,
                    total_iterations=event.total_iterations,
                    total_loss=event.total_loss,
                    terms=_terms_to_proto(event.terms),
                    elapsed_seconds=event.elapsed_seconds,
                    eta_seconds=event.eta_seconds,
                )
            )
        case events.Preview() as event:
            message.preview.CopyFrom(
                pb.Preview(
                    iteration=event.iteration,
                    media_type=event.media_type,
                    width=event.width,
                    height=event.height,
                    data=event.data,
                )
            )
        case events.ResultHeader() as event:
            message.result_header.CopyFrom(header_to_proto(event))
        case events.ResultChunk() as event:
            message.result_chunk.CopyFrom(pb.ResultChunk(offset=event.offset, data=bytes(event.data)))
        case events.Completed() as event:
            message.completed.CopyFrom(completed_to_proto(event, model))
        case unknown:
            assert_never(unknown)
    return message


def header_to_proto(header: events.ResultHeader) -> pb.ResultHeader:
    """Translate what a finished picture is."""
    return pb.ResultHeader(
        media_type=header.media_type,
        width=header.width,
        height=header.height,
        size_bytes=header.size_bytes,
        sha256=header.sha256,
    )


def completed_to_proto(completed: events.Completed, model: Vgg19) -> pb.Completed:
    """Translate how a job has ended."""
    return pb.Completed(
        stop_reason=enum_to_proto(completed.stop_reason),
        iterations=completed.iterations,
        total_loss=completed.total_loss,
        terms=_terms_to_proto(completed.terms),
        timings=pb.Timings(
            queued_seconds=completed.timings.queued,
            targets_seconds=completed.timings.targets,
            optimize_seconds=completed.timings.optimize,
            encode_seconds=completed.timings.encode,
        ),
        weights=weights_to_proto(model),
    )


def failure_to_proto(status: status_pb2.Status) -> pb.JobFailure:
    """Translate the status that a job ended with."""
    info = error_details_pb2.ErrorInfo()
    reason = next((info.reason for detail in status.details if detail.Unpack(info)), "")
    return pb.JobFailure(code=status.code, message=status.message, reason=reason, details=status.details)


def job_to_proto(view: JobView, model: Vgg19) -> pb.Job:
    """Translate where a job stands."""
    stored = view.stored
    job = pb.Job.FromString(stored.outcome or b"")
    job.job_id = stored.id
    job.request_id = stored.request_id or ""
    job.state = enum_to_proto(stored.state)
    job.disconnect_policy = enum_to_proto(stored.disconnect_policy)
    job.create_time.FromMicroseconds(round(stored.created_at * 1e6))
    if stored.finished_at is not None:
        job.end_time.FromMicroseconds(round(stored.finished_at * 1e6))
    job.accepted.CopyFrom(pb.JobEvent.FromString(stored.accepted_event).accepted)
    job.width, job.height = view.size
    if view.progress and not stored.state.is_terminal:
        job.progress.CopyFrom(event_to_proto(LoggedEvent(0, view.progress), model).progress)
    return job


def estimate_to_proto(accepted: events.Accepted) -> pb.EstimateResponse:
    """Translate what a job would do and cost."""
    return pb.EstimateResponse(
        options=options_to_proto(accepted.options),
        output=output_to_proto(accepted.output),
        width=accepted.width,
        height=accepted.height,
        estimate=_estimate_to_proto(accepted.estimate),
    )


def _estimate_to_proto(estimate: events.CostEstimate) -> pb.CostEstimate:
    return pb.CostEstimate(
        seconds=estimate.seconds,
        queue_seconds=estimate.queue_seconds,
        peak_memory_bytes=estimate.peak_memory_bytes,
        tile_size=estimate.tile_size,
        reduced_from=estimate.reduced_from,
    )


def options_to_proto(options: TransferOptions) -> pb.TransferOptions:
    """Translate options; what is None stays unset."""
    return pb.TransferOptions(
        **_present_scalars(pb.TransferOptions, options),
        preset=enum_to_proto(options.preset),
        **{name: enum_to_proto(getattr(options, name)) for name in _OPTION_ENUMS},
        scale_iterations=options.scale_iterations,
        content_layers=_layers_to_proto(options.content_layers),
        style_layers=_layers_to_proto(options.style_layers),
    )


def output_to_proto(output: OutputOptions) -> pb.OutputOptions:
    """Translate output options."""
    return pb.OutputOptions(**_present_scalars(pb.OutputOptions, output), format=enum_to_proto(output.format))


def weights_to_proto(model: Vgg19) -> pb.Weights:
    """Name the weights of a model."""
    return pb.Weights(id=model.weights_id, sha256=model.weights_sha256)


JobRequest = pb.WatchJobRequest | pb.GetJobRequest | pb.CancelJobRequest
"""What names a job by one of its ids."""


def check_job_name(request: JobRequest) -> None:
    """See that a request names one job.

    Raises:
        InvalidRequestError: it has both ids, which may be of two.
    """
    if request.job_id and request.request_id:
        raise InvalidRequestError([Violation("request_id", "is set beside job_id, accepted is one of them")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Which jobs are wanted."""

    size: int
    states: tuple[JobState, ...]
    before: int | None
    """The number of the last job of the page before."""


def page_from_proto(request: pb.ListJobsRequest) -> Page:
    """Translate which jobs are wanted.

    Raises:
        InvalidRequestError: with everything that is wrong.
    """
    violations = []
    if not 0 <= request.page_size <= _MAX_PAGE_SIZE:
        violations.append(Violation("page_size", f"is {request.page_size}, accepted are 1 to {_MAX_PAGE_SIZE}"))
    if request.page_token and not _PAGE_TOKEN.fullmatch(request.page_token):
        violations.append(Violation("page_token", "is no next_page_token of this server"))
    for index, number in enumerate(request.states):
        if number == 0 or number not in pb.JobState.values():
            accepted = ", ".join(name for name, value in pb.JobState.items() if value)
            violations.append(Violation(f"states[{index}]", f"has no value {number}, accepted are {accepted}"))
    if violations:
        raise InvalidRequestError(violations)
    return Page(
        size=request.page_size or _PAGE_SIZE,
        states=tuple(enum_from_proto(JobState, number) for number in request.states),
        before=int(request.page_token) if request.page_token else None,
    )


def jobs_to_proto(views: Sequence[JobView], size: int, model: Vgg19) -> pb.ListJobsResponse:
    """Translate a page of jobs; where there is one more than its size, others follow."""
    token = str(views[size - 1].stored.number) if len(views) > size else ""
    return pb.ListJobsResponse(jobs=[job_to_proto(view, model) for view in views[:size]], next_page_token=token)


def limits_to_proto(
    limits: Limits, durability: Durability, *, max_request_bytes: int, max_queued_jobs: int
) -> pb.Limits:
    """Translate the limits of a server."""
    return pb.Limits(
        max_request_bytes=max_request_bytes,
        max_input_pixels=limits.max_input_pixels,
        max_image_size=limits.max_image_size,
        max_iterations=limits.max_iterations,
        max_styles=limits.max_styles,
        max_queued_jobs=max_queued_jobs,
        reattach_seconds=durability.reattach_seconds,
        retention_seconds=durability.retention_seconds,
    )


def enum_from_proto(kind: type[_Enum], number: int) -> _Enum:
    """Translate a number that an enum of the contract has."""
    wrapper, prefix = _ENUMS[kind]
    return kind(wrapper.Name(number).removeprefix(prefix).lower())


def enum_to_proto(value: StrEnum) -> Any:
    """Translate a value of any enum that the contract has."""
    wrapper, prefix = _ENUMS[type(value)]
    return wrapper.Value(prefix + value.upper())


def _terms_to_proto(terms: Mapping[Term, float]) -> list[pb.LossTerm]:
    return [pb.LossTerm(kind=enum_to_proto(term.kind), layer=term.layer, value=value) for term, value in terms.items()]


def _layers_to_proto(layers: Mapping[str, float]) -> list[pb.LayerWeight]:
    return [pb.LayerWeight(layer=layer, weight=weight) for layer, weight in layers.items()]


def _scalar_names(kind: type[Message]) -> list[str]:
    """Return the fields that are `optional` scalars; they have the same names on our side."""
    return [field.name for field in kind.DESCRIPTOR.fields if field.has_presence and field.message_type is None]


def _set_scalars(message: Message) -> dict[str, Any]:
    return {name: getattr(message, name) for name in _scalar_names(type(message)) if message.HasField(name)}


def _present_scalars(kind: type[Message], options: object) -> dict[str, Any]:
    return {name: value for name in _scalar_names(kind) if (value := getattr(options, name)) is not None}
