"""The translation of requests, from the contract to the types of engine and jobs."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message
from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.choices import Init, OutputFormat, Preset
from nst_service.engine.errors import InvalidRequestError, Violation
from nst_service.engine.options import DEFAULT_PRESET, OutputOptions, StyleOptions, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest
from nst_service.lifecycle import JobState
from nst_service.rpc.translate.fields import OPTION_ENUMS, enum_from_proto, enum_problem, scalars_from_proto
from nst_service.store.records import DisconnectPolicy

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PAGE_TOKEN = re.compile(r"[0-9]{1,18}")
_PAGE_SIZE, _MAX_PAGE_SIZE = 50, 1000
"""The default and the largest number of jobs on a page."""

JobRequest = pb.WatchJobRequest | pb.GetJobRequest | pb.CancelJobRequest
"""The requests that name a job by one of its ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a list of jobs."""

    size: int
    """The largest number of jobs on the page."""
    states: tuple[JobState, ...]
    """The states of the jobs; empty for all."""
    before: int | None
    """The number of the last job of the previous page; None for the first page."""


def request_from_proto(request: pb.StylizeRequest, pictures: Mapping[str, bytes]) -> TransferRequest:
    """Translate a request. A field that is not set gets its default.

    Args:
        request: the request, which names its pictures by their SHA-256.
        pictures: the encoded pictures by their SHA-256.

    Raises:
        InvalidRequestError: a picture is missing, an enum has no such value, or a layer is named twice.
    """
    return _RequestReader(request, pictures).read()


def disconnect_policy_from_proto(request: pb.StylizeRequest) -> DisconnectPolicy:
    """Return the disconnect policy of a request that `request_from_proto` accepts."""
    number = request.disconnect_policy
    return enum_from_proto(DisconnectPolicy, number) if number else DisconnectPolicy.CANCEL


def check_job_name(request: JobRequest) -> None:
    """Check that a request names only one job.

    Raises:
        InvalidRequestError: the request has both ids, which may belong to two jobs.
    """
    if request.job_id and request.request_id:
        raise InvalidRequestError(
            [Violation("request_id", "is set together with job_id; only one of them is accepted")]
        )


def page_from_proto(request: pb.ListJobsRequest) -> Page:
    """Translate a request for a page of jobs.

    Raises:
        InvalidRequestError: the request is invalid; the error has every violation.
    """
    violations = []
    if not 0 <= request.page_size <= _MAX_PAGE_SIZE:
        violations.append(Violation("page_size", f"is {request.page_size}; accepted values are 1 to {_MAX_PAGE_SIZE}"))
    if request.page_token and not _PAGE_TOKEN.fullmatch(request.page_token):
        violations.append(Violation("page_token", "is not a next_page_token of this server"))
    for index, number in enumerate(request.states):
        if problem := enum_problem(JobState, number):
            violations.append(Violation(f"states[{index}]", problem))
    if violations:
        raise InvalidRequestError(violations)
    return Page(
        size=request.page_size or _PAGE_SIZE,
        states=tuple(enum_from_proto(JobState, number) for number in request.states),
        before=int(request.page_token) if request.page_token else None,
    )


class _RequestReader:
    """Reads a request, and collects a violation for every field that cannot be translated."""

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
                    options=StyleOptions(**scalars_from_proto(style)),
                )
                for index, style in enumerate(request.styles)
            ),
            content_mask=self._optional_picture("content_mask", request, "content_mask"),
            init_picture=self._optional_picture("init_picture", request, "init_picture"),
            reference=self._optional_picture("reference", request, "reference"),
            reference_mask=self._optional_picture("reference_mask", request, "reference_mask"),
            options=self._transfer_options(),
            output=OutputOptions(
                **scalars_from_proto(request.output) | self._enum("output", request.output, "format", OutputFormat)
            ),
        )
        self._check_job()
        if self._violations:
            raise InvalidRequestError(self._violations)
        return translated

    def _check_job(self) -> None:
        request = self._request
        if request.request_id and not _REQUEST_ID.fullmatch(request.request_id):
            self._violate("request_id", "is not valid; accepted are 1 to 128 printable ASCII characters without spaces")
        policy = self._enum("", request, "disconnect_policy", DisconnectPolicy).get("disconnect_policy")
        if policy is DisconnectPolicy.KEEP_RUNNING and not request.request_id:
            self._violate("disconnect_policy", "is DISCONNECT_POLICY_KEEP_RUNNING, which needs a request_id")

    def _transfer_options(self) -> TransferOptions:
        options = self._request.options
        preset = self._enum("options", options, "preset", Preset).get("preset", DEFAULT_PRESET)
        values = scalars_from_proto(options)
        if self._request.HasField("init_picture"):
            values["init"] = Init.PICTURE
        for name, kind in OPTION_ENUMS.items():
            values |= self._enum("options", options, name, kind)
        if options.scale_iterations:
            values["scale_iterations"] = tuple(options.scale_iterations)
        for name in ("content_layers", "style_layers"):
            if layers := getattr(options, name):
                values[name] = self._layers(f"options.{name}", layers)
        return TransferOptions.from_preset(preset, **values)

    def _picture(self, field: str, parent: Message, name: str) -> bytes:
        picture: pb.Picture = getattr(parent, name)
        if not picture.HasField("source"):
            self._violate(field, "is not set; an encoded picture or its SHA-256 is required")
            return b""
        return self._pictures[picture.sha256]

    def _optional_picture(self, field: str, parent: Message, name: str) -> bytes | None:
        return self._picture(field, parent, name) if parent.HasField(name) else None

    def _layers(self, field: str, layers: Iterable[pb.LayerWeight]) -> dict[str, float]:
        weights: dict[str, float] = {}
        for entry in layers:
            if entry.layer in weights:
                self._violate(field, f"names layer {entry.layer[:32]!r} more than once")
            weights[entry.layer] = entry.weight if entry.HasField("weight") else 1.0
        return weights

    def _enum(self, path: str, message: Message, name: str, kind: type[StrEnum]) -> dict[str, Any]:
        """Return the value of an enum field by the name of the field; empty if it is not set or invalid."""
        number: int = getattr(message, name)
        if number == 0:
            return {}
        if problem := enum_problem(kind, number):
            self._violate(f"{path}.{name}" if path else name, problem)
            return {}
        return {name: enum_from_proto(kind, number)}

    def _violate(self, field: str, description: str) -> None:
        self._violations.append(Violation(field, description))
