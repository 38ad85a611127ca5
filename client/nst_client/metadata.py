"""The metadata that a server writes into a picture: how it was made."""

import dataclasses
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from nst_client.errors import InvalidRequestError
from nst_client.events import Weights
from nst_client.options import OutputOptions, TransferOptions

_BEGINNING = b'{"nst_stylize":'
"""The first bytes of the metadata, which are uncompressed JSON in PNG, JPEG, WebP and TIFF alike."""

_T = TypeVar("_T", TransferOptions, OutputOptions)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """How a picture was made. Options that this version does not know are left out."""

    version: str
    """The version of the server."""
    weights: Weights
    """The weights that were used."""
    options: TransferOptions
    """The options that were in effect, including the seed."""
    output: OutputOptions
    """The output options that were in effect."""
    style_weights: tuple[float, ...]
    """The share of each style."""
    style_scales: tuple[float, ...]
    """The scale of each style."""


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Read how a picture was made.

    Raises:
        InvalidRequestError: the file cannot be read, or has no metadata of nst.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError.of(str(path), f"cannot be read: {error.strerror}") from error
    start = data.find(_BEGINNING)
    try:
        if start < 0:
            raise ValueError
        found, _ = json.JSONDecoder().raw_decode(data[start:].decode("ascii", errors="replace"))
        return Metadata(
            version=str(found["nst_stylize"]),
            weights=Weights(**found["weights"]),
            options=_known(TransferOptions, found["options"]),
            output=_known(OutputOptions, found["output"]),
            style_weights=tuple(float(style["weight"]) for style in found["styles"]),
            style_scales=tuple(float(style["scale"]) for style in found["styles"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequestError.of(str(path), "does not say how it was made by nst") from error


def _known(kind: type[_T], values: dict[str, Any]) -> _T:
    """Build options from JSON, without those that this version does not know."""
    hints = get_type_hints(kind)
    known: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.name in values:
            value = values[field.name]
            enums = [
                hint for hint in get_args(hints[field.name]) if isinstance(hint, type) and issubclass(hint, StrEnum)
            ]
            if enums and value is not None:
                value = enums[0](value)
            known[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**known)
