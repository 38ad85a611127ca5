"""The contract with its comments, as the protobuf compiler reads it."""

import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

from docs.generator.markdown import block, code, plain

PROTO = Path(__file__).parents[2] / "proto"
SOURCE = PROTO / "nst" / "v1" / "style_transfer.proto"
_WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
"""Folder of the files that come with protobuf."""

_STATEMENT = re.compile(
    r"(?:(?P<need>REQUIRED[^.]*|OPTIONAL)\. )?(?P<text>.*?)"
    r"(?: Range: (?P<range>.*?)\.)?(?: Default: (?P<default>.*)\.)?"
)
_SCALARS = {
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_UINT64: "uint64",
}
_FIELD, _VALUE = 2, 2
"""Numbers of `DescriptorProto.field` and `EnumDescriptorProto.value`, for the paths of comments."""
_MESSAGE, _ENUM = 4, 5
"""Numbers of `FileDescriptorProto.message_type` and `enum_type`, likewise."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a message, with the parts of its comment."""

    name: str
    type: str
    """A scalar type or the name of a message or an enum; "repeated" stands before it for a list."""
    need: str
    """"REQUIRED", with its condition, or "OPTIONAL". Empty in a response."""
    text: str
    range: str
    """The accepted values; empty if the comment names none."""
    default: str
    """The default; empty if the comment names none."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of an enum."""

    name: str
    """The name without the prefix of the enum, in lower case: that of the clients."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message with its comment."""

    name: str
    text: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, kw_only=True)
class Enum:
    """An enum with its comment and its values, without the unspecified one."""

    name: str
    text: str
    values: tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The messages and enums of the contract by name."""

    messages: Mapping[str, Message]
    enums: Mapping[str, Enum]

    def prose(self, text: str) -> str:
        """Return a comment as Markdown: identifiers become code, and indented lines a block of code."""
        paragraphs: list[list[str]] = [[]]
        for line in text.split("\n"):
            is_code = line.startswith(("  ", "+ "))
            if not line or (paragraphs[-1] and is_code != paragraphs[-1][-1].startswith(("  ", "+ "))):
                paragraphs.append([])
            if line:
                paragraphs[-1].append(line)
        return "\n".join(
            block("\n".join(lines)) if lines[0].startswith(("  ", "+ ")) else self._marked(" ".join(lines)) + "\n"
            for lines in paragraphs
            if lines
        ).strip()

    def cell(self, text: str) -> str:
        """Return a comment as Markdown on one line."""
        return self._marked(" ".join(text.split()))

    def _marked(self, text: str) -> str:
        return self._identifiers.sub(lambda match: code(self._values.get(match[0], match[0])), plain(text))

    @functools.cached_property
    def _values(self) -> Mapping[str, str]:
        """The name of each value of an enum in the clients, by its name in the contract."""
        return {
            prefix(name) + value.name.upper(): value.name for name, enum in self.enums.items() for value in enum.values
        }

    @functools.cached_property
    def _identifiers(self) -> re.Pattern[str]:
        fields = {field.name for message in self.messages.values() for field in message.fields if "_" in field.name}
        types = {name for name in (*self.messages, *self.enums) if name not in _WORDS}
        names = "|".join(sorted(fields | types | _CALLS, key=len, reverse=True))
        return re.compile(rf"\b(?:[A-Z][A-Za-z]+\.[a-z_]+|(?:{names})|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\b")


_WORDS = frozenset(
    {"Init", "Job", "Limits", "Optimizer", "Padding", "Picture", "Pooling", "Preset", "Style", "Weights"}
)
"""Names of types that are English words, too."""
_CALLS = frozenset({"CancelJob", "Estimate", "GetJob", "GetServerInfo", "ListJobs", "Stylize", "WatchJob"})


@functools.cache
def contract() -> Contract:
    """Return the contract."""
    file = _compiled()
    comments = {tuple(location.path): location.leading_comments for location in file.source_code_info.location}
    messages = (_message(kind, index, comments) for index, kind in enumerate(file.message_type))
    enums = (_enum(kind, index, comments) for index, kind in enumerate(file.enum_type))
    return Contract(messages={message.name: message for message in messages}, enums={enum.name: enum for enum in enums})


def _compiled() -> FileDescriptorProto:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "contract.binpb"
        arguments = [
            f"--proto_path={PROTO}",
            f"--proto_path={_WELL_KNOWN}",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            str(SOURCE),
        ]
        if protoc.main(["protoc", *arguments]):
            raise RuntimeError(f"{SOURCE} does not compile")
        (file,) = FileDescriptorSet.FromString(output.read_bytes()).file
    return file


def _message(kind: DescriptorProto, index: int, comments: Mapping[tuple[int, ...], str]) -> Message:
    path = (_MESSAGE, index)
    fields = (_field(field, _text(comments, *path, _FIELD, place)) for place, field in enumerate(kind.field))
    return Message(name=kind.name, text=_text(comments, *path), fields=tuple(fields))


def _field(field: FieldDescriptorProto, comment: str) -> Field:
    kind = _SCALARS.get(field.type) or field.type_name.removeprefix(".nst.v1.").removeprefix(".google.protobuf.")
    is_list = field.label == FieldDescriptorProto.LABEL_REPEATED
    match = _STATEMENT.fullmatch(" ".join(comment.split()))
    assert match is not None
    parts = match.groupdict(default="")
    return Field(
        name=field.name,
        type=f"repeated {kind}" if is_list else kind,
        need=parts["need"],
        text=parts["text"],
        range=parts["range"],
        default=parts["default"],
    )


def _enum(kind: EnumDescriptorProto, index: int, comments: Mapping[tuple[int, ...], str]) -> Enum:
    path = (_ENUM, index)
    values = tuple(
        Value(name=value.name.removeprefix(prefix(kind.name)).lower(), text=_text(comments, *path, _VALUE, place))
        for place, value in enumerate(kind.value)
        if value.number
    )
    return Enum(name=kind.name, text=_text(comments, *path), values=values)


def prefix(name: str) -> str:
    """Return the prefix of the values of an enum in the contract."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"


def _text(comments: Mapping[tuple[int, ...], str], *path: int) -> str:
    lines: Sequence[str] = comments.get(path, "").split("\n")
    return "\n".join(line.removeprefix(" ") for line in lines).strip("\n")
