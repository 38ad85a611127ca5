"""Messages to and from a process that decodes pictures.

A message is a JSON document, and then bytes that the document describes. What comes back from a process that reads
hostile files must not be able to run anything here, so that nothing is pickled.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from nst_service.engine.pictures.picture import Picture
from nst_service.engine.pictures.working import Role
from nst_service.engine.sizes import Size

_LENGTH = struct.Struct(">I")
_CHANNELS = {"RGB": 3, "L": 1}
"""Bytes of a pixel in a message, by the mode of its image."""


class Stream(Protocol):
    """A blocking stream of bytes."""

    def read(self, size: int, /) -> bytes | None:
        """Return this number of bytes, fewer only at the end of the stream."""

    def write(self, data: Any, /) -> int | None:
        """Write all bytes."""

    def flush(self) -> None:
        """Send what was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingTask:
    """The work on one picture."""

    data: bytes
    """The encoded picture."""
    max_pixels: int
    """Width times height beyond which the picture is refused."""
    cpu_seconds: float
    """Seconds of CPU time after which the process is killed."""
    role: Role | None = None
    """The role in which the picture is decoded; None to read its header only."""
    sizes: Sequence[Size] = ()
    """The sizes that the picture is resampled to in turn."""
    is_check: bool = False
    """Whether the pixels are thrown away, because they are decoded only to see whether they can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodingAnswer:
    """The outcome of a task."""

    cpu_seconds: float
    """Seconds of CPU time that the task took."""
    size: Size | None = None
    """The size of the picture, upright; None if it was decoded or refused."""
    images: Sequence[Image.Image] = ()
    """The decoded picture: its colours and its transparency if it has one, or the brightness of a mask."""
    refusal: str = ""
    """The reason for which the picture is refused, as in `PictureError`; empty if it is not."""
    is_too_costly: bool = False
    """Whether the reason is a limit of this server."""

    @property
    def picture(self) -> Picture:
        """The decoded picture, of any role but a mask."""
        return Picture(*self.images)


def send_task(stream: Stream, task: DecodingTask) -> None:
    """Send a task to a process that decodes."""
    document = {
        "bytes": len(task.data),
        "max_pixels": task.max_pixels,
        "cpu_seconds": task.cpu_seconds,
        "role": task.role,
        "sizes": task.sizes,
        "is_check": task.is_check,
    }
    _send(stream, document, [task.data])


def receive_task(stream: Stream) -> DecodingTask | None:
    """Return the next task; None when there will be none."""
    document = _receive(stream)
    if document is None:
        return None
    return DecodingTask(
        data=_exactly(stream, document["bytes"]),
        max_pixels=document["max_pixels"],
        cpu_seconds=document["cpu_seconds"],
        role=Role(document["role"]) if document["role"] else None,
        sizes=[Size(*size) for size in document["sizes"]],
        is_check=document["is_check"],
    )


def send_answer(stream: Stream, answer: DecodingAnswer) -> None:
    """Send the outcome of a task."""
    document = {
        "cpu_seconds": answer.cpu_seconds,
        "size": answer.size,
        "images": [{"mode": image.mode, "size": image.size} for image in answer.images],
        "refusal": answer.refusal,
        "is_too_costly": answer.is_too_costly,
    }
    _send(stream, document, (image.tobytes() for image in answer.images))


def receive_answer(stream: Stream) -> DecodingAnswer:
    """Return the outcome of the task that was sent last.

    Raises:
        EOFError: the process has ended.
        ValueError: this is no answer of a process that decodes.
    """
    document = _receive(stream)
    if document is None:
        raise EOFError
    try:
        return DecodingAnswer(
            cpu_seconds=float(document["cpu_seconds"]),
            size=Size(*map(int, document["size"])) if document["size"] else None,
            images=[_receive_image(stream, image["mode"], Size(*image["size"])) for image in document["images"]],
            refusal=str(document["refusal"]),
            is_too_costly=bool(document["is_too_costly"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError("the answer is malformed") from error


def _receive_image(stream: Stream, mode: str, size: Size) -> Image.Image:
    return Image.frombytes(mode, size, _exactly(stream, _CHANNELS[mode] * math.prod(size)))


def _send(stream: Stream, document: Mapping[str, Any], contents: Iterable[bytes]) -> None:
    head = json.dumps(document).encode()
    stream.write(_LENGTH.pack(len(head)) + head)
    for content in contents:
        stream.write(content)
    stream.flush()


def _receive(stream: Stream) -> Any:
    head = stream.read(_LENGTH.size)
    if not head:
        return None
    if len(head) < _LENGTH.size:
        raise EOFError
    return json.loads(_exactly(stream, _LENGTH.unpack(head)[0]))


def _exactly(stream: Stream, size: int) -> bytes:
    data = stream.read(size)
    if data is None or len(data) < size:
        raise EOFError
    return data
