"""Messages between a server and the process of a remote device.

A message is a JSON document and buffers of bytes that the document describes. Pictures, snapshots and results travel in
buffers, so that they are not copied into the document. Nothing is pickled: both ends check what they read against the
types of this release, and an end of another release is refused before anything else is read.
"""

import collections.abc
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from PIL import Image

from nst_service.engine.estimate import Cost
from nst_service.engine.outline import TransferOutline
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import DoesNotFitError, JobCancelledError, JobError, JobFailedError
from nst_service.jobs.events import JobResult, Preparing, Preview, Progress, Reduced, Started
from nst_service.jobs.job import Work
from nst_service.lifecycle import StopReason

Buffer = bytes | bytearray | memoryview

_ERRORS: Mapping[str, type[JobError]] = {
    kind.__name__: kind for kind in (DoesNotFitError, JobCancelledError, JobFailedError)
}
"""The errors that a run ends with, by their names."""
_T = TypeVar("_T")


class WireError(Exception):
    """The message is not one of this release."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message: a document, and the buffers to which it refers by their places."""

    document: bytes
    """JSON in UTF-8."""
    buffers: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Everything of a device on which the bytes of its results depend, beside the request and its seed."""

    release: str
    """The version of nst."""
    torch: str
    """The version of torch."""
    weights_sha256: str
    processor: str
    """The name of the GPU, or the instruction set of the CPU."""
    backend: str
    """The implementation of the convolutions."""
    precision: str
    threads: int
    """The number of CPU threads."""

    def difference(self, other: "Kind") -> str:
        """Describe in words how a device of this kind differs from one of another kind; empty if it does not."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return ", ".join(
            f"its {name.replace('_', ' ')} is {mine[name]!r} instead of {others[name]!r}"
            for name in mine
            if mine[name] != others[name]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the process of a device tells of itself when it is warm."""

    kind: Kind
    device: str
    """The name of the device in its process: "cpu" or "cuda:0"."""
    place: str
    """The host and the process id."""
    layers: tuple[str, ...]
    memory: int
    """Bytes that all jobs can have together."""
    capacity: int
    """Bytes that a job can have."""
    seconds_per_operation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SentImage:
    """An image of a specification."""

    sha256: str
    mode: str
    size: Size
    pixels: bytes

    @classmethod
    def of(cls, sha256: str, image: Image.Image) -> "SentImage":
        """Return an image with its name."""
        return cls(sha256=sha256, mode=image.mode, size=Size(*image.size), pixels=image.tobytes())

    def to_image(self) -> Image.Image:
        """Return the image."""
        return Image.frombytes(self.mode, self.size, self.pixels)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """A job for a device. Times are relative, because the machines share no monotonic clock."""

    job_id: str
    spec: str
    """The specification, as `spec_document` returns it."""
    images: tuple[str, ...]
    """The SHA-256 of the images of the specification."""
    sent: tuple[SentImage, ...]
    """Those of the images that are sent along."""
    outline: TransferOutline
    cost: Cost
    work: Work
    """The work of the earlier runs of the job."""
    remaining_seconds: float
    accepted_ago: float
    """Seconds since the acceptance of the job."""
    deadline_in: float | None
    """Seconds until the deadline of the job; None for no deadline."""
    expected_seconds: float
    snapshot: tuple[memoryview, ...] | None
    """The buffers of the snapshot to go on from; None to start from the beginning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageQuery:
    """A question which of some images are unknown to the process of a device."""

    images: tuple[str, ...]
    """The SHA-256 of the images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingImages:
    """The answer to a query, and to an order. A job whose images are missing has not joined."""

    images: tuple[str, ...]
    """The SHA-256 of the images that must be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The present requests to the run of a job (see `JobControl`)."""

    job_id: str
    stop_requested: StopReason | None
    must_leave: bool
    is_abandoned: bool
    checkpoint_in: float | None
    """Seconds until the next snapshot is wanted; None if that has not changed."""
    reductions_stored: int
    """The number of reductions of the size that the store has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """A request for the reports since the last poll."""

    wait_seconds: float
    """Seconds to wait for a report if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requeue:
    """The run has left its device, in order to go on elsewhere (see `Requeued`)."""

    snapshot: tuple[memoryview, ...] | None
    is_lost: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The error with which a run has ended."""

    kind: str
    """The name of its type."""
    arguments: str
    """Its arguments, in JSON."""
    attributes: str
    """Its attributes, in JSON."""

    @classmethod
    def of(cls, error: JobError) -> "Failure":
        """Return the description of an error."""
        return cls(kind=type(error).__name__, arguments=json.dumps(error.args), attributes=json.dumps(vars(error)))

    def to_error(self) -> JobError:
        """Return the error.

        Raises:
            WireError: no run ends with such an error.
        """
        if self.kind not in _ERRORS:
            raise WireError(f"has an unknown error {self.kind!r:.40}")
        kind = _ERRORS[self.kind]
        error = kind.__new__(kind)
        error.args = tuple(json.loads(self.arguments))
        error.__dict__.update(json.loads(self.attributes))
        return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinking:
    """The run goes on with less memory."""

    outline: TransferOutline
    cost: Cost
    reduced: Reduced | None
    """The event with the smaller size; None if the size stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report of the run of a job. Exactly one of the optional fields is set."""

    job_id: str
    remaining_seconds: float
    next_seconds: float
    work: Work
    started: Started | None = None
    preparing: Preparing | None = None
    progress: Progress | None = None
    preview: Preview | None = None
    shrinking: Shrinking | None = None
    checkpoint: tuple[memoryview, ...] | None = None
    """The buffers of a snapshot to be stored."""
    result: JobResult | None = None
    requeue: Requeue | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to a poll."""

    reports: tuple[Report, ...]
    seconds_per_operation: float


def _image_sha256(image: Image.Image) -> str:
    """Return the SHA-256 of the mode, the size and the pixels of an image."""
    digest = hashlib.sha256(f"{image.mode}{image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


@dataclass(slots=True)
class Packer:
    """Turns values of known types into a document and buffers. Images are left out, and named by their SHA-256."""

    buffers: list[Buffer] = field(default_factory=list)
    images: dict[str, Image.Image] = field(default_factory=dict)
    """The images of the values, by their SHA-256."""

    def pack(self, value: object) -> Any:
        """Return a value as JSON can hold it."""
        match value:
            case Enum():
                return value.value
            case None | bool() | int() | float() | str():
                return value
            case bytes() | bytearray() | memoryview():
                self.buffers.append(value)
                return len(self.buffers) - 1
            case Image.Image():
                return self._name(value)
            case Mapping():
                return [[self.pack(key), self.pack(each)] for key, each in value.items()]
            case Sequence():
                return [self.pack(each) for each in value]
            case _:
                assert dataclasses.is_dataclass(value), type(value)
                return {each.name: self.pack(getattr(value, each.name)) for each in dataclasses.fields(value)}

    def _name(self, image: Image.Image) -> Any:
        # A picture may appear several times in a specification.
        sha256 = next((name for name, known in self.images.items() if known is image), None) or _image_sha256(image)
        self.images[sha256] = image
        return sha256

    def message(self, value: object) -> Message:
        """Return the message with a value and the buffers so far."""
        document = json.dumps(self.pack(value)).encode()
        return Message(document, self.buffers)


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Turns documents back into values of known types."""

    buffers: Sequence[Buffer] = ()
    images: Mapping[str, Image.Image] = field(default_factory=dict)

    def read(self, kind: type[_T], message: Message) -> _T:
        """Return the value in a message.

        Raises:
            WireError: the message contains no such value.
        """
        try:
            value: _T = self.unpack(kind, json.loads(message.document))
        except WireError:
            raise
        except Exception as error:
            raise WireError(f"is no {kind.__name__} of this release") from error
        return value

    def unpack(self, kind: Any, packed: Any) -> Any:
        """Return a value of a type. Raises almost anything if it is not of that type."""
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.unpack(arguments[0], packed)
        if origin in (Union, UnionType):
            (some,) = (each for each in arguments if each is not NoneType)
            return None if packed is None else self.unpack(some, packed)
        if origin is tuple and arguments[-1] is Ellipsis:
            return tuple(self.unpack(arguments[0], each) for each in packed)
        if origin is tuple:
            return tuple(self.unpack(each, value) for each, value in zip(arguments, packed, strict=True))
        if origin in (dict, collections.abc.Mapping):
            key, each = arguments
            return {self.unpack(key, name): self.unpack(each, value) for name, value in packed}
        return self._plain(kind, packed)

    def _plain(self, kind: Any, packed: Any) -> Any:
        if kind is Image.Image:
            return self.images[packed]
        if kind in (bytes, memoryview):
            return kind(self.buffers[packed])
        if dataclasses.is_dataclass(kind):
            return self._fields(kind, packed)
        if issubclass(kind, tuple):
            hints = get_type_hints(kind)
            return kind(*(self.unpack(hint, each) for hint, each in zip(hints.values(), packed, strict=True)))
        if issubclass(kind, Enum):
            return kind(packed)
        if kind is float and type(packed) is int:
            return float(packed)
        if type(packed) is not kind:
            raise WireError(f"has a {type(packed).__name__} instead of a {kind.__name__}")
        return packed

    def _fields(self, kind: Any, packed: Any) -> Any:
        hints = get_type_hints(kind, include_extras=True)
        if packed.keys() != {each.name for each in dataclasses.fields(kind)}:
            raise WireError(f"has other fields than {kind.__name__} of this release")
        return kind(**{name: self.unpack(hints[name], value) for name, value in packed.items()})


def spec_document(spec: TransferSpec) -> tuple[str, Mapping[str, Image.Image]]:
    """Return a specification as a document that names its images by their SHA-256, and these images."""
    packer = Packer()
    return json.dumps(packer.pack(spec)), packer.images


def spec_from(document: str, images: Mapping[str, Image.Image]) -> TransferSpec:
    """Return the specification in a document of `spec_document`.

    Raises:
        WireError: the document contains none.
    """
    return Unpacker(images=images).read(TransferSpec, Message(document.encode()))
