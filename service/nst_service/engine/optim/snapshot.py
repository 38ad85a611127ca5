"""Snapshots: the state of a transfer, in memory and as bytes, from which it can go on exactly.

Nobody need trust the bytes: those of anything else end in a SnapshotError.
"""

import contextlib
import dataclasses
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import torch
from safetensors.torch import load
from torch import Tensor

from nst_service.engine.errors import SnapshotError
from nst_service.engine.objective.evaluation import Evaluation, Values
from nst_service.engine.optim.optimizer import OptimizerState
from nst_service.engine.sizes import Size

_VERSION = 3
"""Version of the bytes, which grows with every change of what they hold."""
_LENGTH = struct.Struct("<Q")
"""Length of the header of a safetensors file."""
_KEY = "nst_snapshot"
"""Key of the metadata. There is only one, since the library writes several in any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a transfer after a step. No later step changes it, and any thread may read it.

    The names of its fields, and of those of the values in it, are the keys of stored snapshots: they stay as they are.
    """

    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    done: int
    """Steps done at this scale."""
    iteration: int
    """Steps done over all scales."""
    seconds: float
    """Seconds of work since the first step began."""
    excess_seconds: float
    """Seconds of these that the work would not have taken at this size: it was done at another one."""
    step_seconds: float
    """Seconds of the last step alone."""
    optimizer: OptimizerState
    """The state of the optimiser."""
    best: Evaluation
    """The evaluation with the least loss at this scale."""
    least_losses: tuple[float, ...]
    """Least loss up to each of the last steps of this scale, oldest first: as many as `min_improvement` needs."""
    average: Tensor | None
    """Moving average of the iterates of this scale, (1, 3, H, W), where the options ask for it."""

    @property
    def size(self) -> Size:
        """Size in pixels of the scale being worked on."""
        return Size.of(self.optimizer.accepted.pixels)

    @property
    def result_pixels(self) -> Tensor:
        """The pixels of the result so far, (1, 3, H, W) in [0, 1] (see `result_pixels`)."""
        return result_pixels(self.best, self.average)

    def to(self, device: torch.device) -> "Snapshot":
        """Return the same with its tensors on a device."""
        packer = _Packer()
        packed = packer.pack(self)
        return _unpacked(packed, {name: tensor.to(device) for name, tensor in packer.tensors.items()}, self.size)

    def to_buffers(self) -> list[memoryview]:
        """Return the contents of a safetensors file in several buffers, whatever device the tensors are on.

        On a CPU the buffers are the tensors, and nothing is copied. Another thread may do this while the transfer goes
        on.
        """
        packer = _Packer()
        packed = packer.pack(self)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in packer.tensors.items()}
        state = {"version": _VERSION, "size": self.size, "snapshot": packed}
        header = _header(tensors, json.dumps(state))
        return [memoryview(header), *(tensor.numpy().data.cast("B") for tensor in tensors.values())]

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """Return the snapshot, on the CPU, whose `to_buffers` were concatenated to these bytes.

        There is no checksum in them: whoever stores them checks that they are the same.

        Raises:
            SnapshotError: truncated, of another version, or something else altogether.
        """
        try:
            tensors, state = load(data), _state(data)
            version, packed = state["version"], state["snapshot"]
        except Exception as error:  # Hostile bytes have parsers raise almost anything.
            raise SnapshotError("is no snapshot, or is damaged or truncated") from error
        if version != _VERSION:
            raise SnapshotError(f"is a snapshot of version {version!r:.32}, the accepted version is {_VERSION}")
        try:
            size = Size(*state["size"])
            # The library has tensors begin anywhere, torch at a multiple of 64 bytes: that may decide on the last bit.
            aligned = {name: tensor.clone() for name, tensor in tensors.items()}
            return _unpacked(packed, aligned, size)
        except Exception as error:  # Whole, but not written by us.
            raise SnapshotError("is a snapshot that contradicts itself") from error


@dataclass(frozen=True, slots=True)
class SerializedSnapshot:
    """The buffers of a snapshot of another process, which is only passed on."""

    buffers: Sequence[memoryview]

    def to_buffers(self) -> Sequence[memoryview]:
        """Return the buffers."""
        return self.buffers


def result_pixels(best: Evaluation, average: Tensor | None) -> Tensor:
    """Return the pixels of a result, (1, 3, H, W) in [0, 1]: the average of the iterates, or else the best of them."""
    return best.pixels if average is None else average


def _header(tensors: Mapping[str, Tensor], state: str) -> bytes:
    """Return what stands before the tensors of a safetensors file; the library would copy them to write it."""
    header: dict[str, object] = {"__metadata__": {_KEY: state}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    # The tensors that follow are aligned.
    text += b" " * (-len(text) % _LENGTH.size)
    return _LENGTH.pack(len(text)) + text


def _state(data: bytes) -> Any:
    """Return what stands in the metadata of a safetensors file, which the library reads from files on disk only."""
    (length,) = _LENGTH.unpack_from(data)
    return json.loads(json.loads(data[_LENGTH.size : _LENGTH.size + length])["__metadata__"][_KEY])


class _Packer:
    """Turns values into what JSON can hold, with names in place of their tensors."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        """The tensors by their names."""
        self._names: dict[int, str] = {}

    def pack(self, value: object) -> Any:
        """Return a value without its tensors."""
        match value:
            case Tensor():
                return self._name(value)
            case tuple():
                return [self.pack(each) for each in value]
            case _ if dataclasses.is_dataclass(value):
                return {field.name: self.pack(getattr(value, field.name)) for field in dataclasses.fields(value)}
            case _:
                return value

    def _name(self, tensor: Tensor) -> str:
        # The best evaluation is mostly the one that was accepted last: it is stored once.
        name = self._names.setdefault(tensor.data_ptr(), str(len(self._names)))
        self.tensors[name] = tensor
        return name


def _unpacked(packed: Any, tensors: Mapping[str, Tensor], size: Size) -> Snapshot:
    snapshot: Snapshot = _Unpacker(tensors, size).unpack(Snapshot, packed)
    return snapshot


class _Unpacker:
    """Turns what `_Packer` has made back into values of known types, and trusts nothing that it is given."""

    def __init__(self, tensors: Mapping[str, Tensor], size: Size):
        self._tensors = tensors
        self._shape = (1, 3, *size.shape)

    def unpack(self, kind: Any, packed: Any) -> Any:
        """Return a value of a type. Raises almost anything if it is not of that type."""
        if isinstance(kind, UnionType):
            return self._first_of(get_args(kind), packed)
        if kind is Tensor:
            return self._picture(packed)
        if kind is Values:
            return self._values(packed)
        if dataclasses.is_dataclass(kind):
            return self._fields(kind, packed)
        if get_origin(kind) is tuple:
            each, _ = get_args(kind)
            return tuple(self.unpack(each, value) for value in packed)
        if issubclass(kind, tuple):
            hints = get_type_hints(kind).values()
            return kind(*(self.unpack(hint, value) for hint, value in zip(hints, packed, strict=True)))
        if issubclass(kind, StrEnum):
            return kind(packed)
        if type(packed) is not kind:
            raise TypeError
        return packed

    def _first_of(self, kinds: tuple[Any, ...], packed: Any) -> Any:
        for kind in kinds:
            with contextlib.suppress(Exception):
                return self.unpack(kind, packed)
        raise TypeError

    def _fields(self, kind: Any, packed: Any) -> Any:
        hints = get_type_hints(kind)
        if packed.keys() != hints.keys():
            raise ValueError
        return kind(**{name: self.unpack(hint, packed[name]) for name, hint in hints.items()})

    def _picture(self, name: str) -> Tensor:
        tensor = self._tensor(name)
        if tensor.shape != self._shape:
            raise ValueError
        return tensor

    def _values(self, name: str) -> Values:
        tensor = self._tensor(name)
        if tensor.ndim != 1:
            raise ValueError
        return Values(tensor)

    def _tensor(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        if tensor.dtype != torch.float32:
            raise ValueError
        return tensor
