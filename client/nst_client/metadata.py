"""The metadata of a picture: how it was made. A server writes them into results, and the client into sheets."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from nst_client.errors import InvalidRequestError
from nst_client.events import Weights
from nst_client.options import OutputOptions, TransferOptions

_PICTURE = "nst_stylize"
"""The first key of the metadata of a picture."""
_SHEET = "nst_sheet"
"""The first key of the metadata of a sheet."""

_COST = (
    "image_size",
    "min_image_size",
    "iterations",
    "scales",
    "scale_iterations",
    "time_budget_seconds",
    "preview_every",
    "preview_size",
)
"""Options that the small pictures of a sheet have, and larger ones should not take from them."""

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


def read_metadata(path: str | os.PathLike[str], cell: tuple[int, int] | None = None) -> Metadata:
    """Read how a picture was made.

    Args:
        path: the path of a picture or of a sheet.
        cell: the column and the row of a cell of a sheet, from 1. Its metadata have neither size nor iterations.

    Raises:
        InvalidRequestError: the file cannot be read, has no metadata of nst, or is a sheet without this cell.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError.of(str(path), f"cannot be read: {error.strerror}") from error
    try:
        if sheet := _found(data, _SHEET):
            return _metadata_of(_cell(str(path), sheet, cell))
        picture = _found(data, _PICTURE)
        if picture is None:
            raise ValueError
        found = _metadata_of(picture)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "does not say how it was made by nst"
        if cell is not None:
            what += ", as a sheet of `explore` does unless it was written with --no-metadata or changed afterwards"
        raise InvalidRequestError.of(str(path), what) from error
    if cell is not None:
        raise InvalidRequestError.of(str(path), "is one picture and no sheet, so it has no cells")
    return found


def describe_sheet(
    picture: bytes, strengths: Sequence[float], stroke_sizes: Sequence[float], options: TransferOptions
) -> str | None:
    """Return the metadata of a sheet as JSON in one line of ASCII; None if its pictures have none.

    Args:
        picture: the result of any cell of the sheet.
        strengths: the strength of each column.
        stroke_sizes: the stroke size of each row.
        options: the options that the cells were requested with.
    """
    try:
        found = _found(picture, _PICTURE)
        if found is None:
            return None
        effective = {name: value for name, value in found["options"].items() if name not in _COST}
        scales = options.scales or len(options.scale_iterations)
        sheet = {
            _SHEET: found[_PICTURE],
            "weights": found["weights"],
            "options": effective | ({"scales": scales} if scales else {}),
            "styles": found["styles"],
            "strengths": list(strengths),
            "stroke_sizes": list(stroke_sizes),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        # Those of another service, perhaps. The sheet is worth more than its metadata.
        return None
    return json.dumps(sheet)


def _found(data: bytes, key: str) -> dict[str, Any] | None:
    """Return the JSON object that begins with a key, which all formats contain uncompressed; None if there is none.

    Raises:
        ValueError: the object is damaged.
    """
    start = data.find(f'{{"{key}":'.encode())
    if start < 0:
        return None
    found: dict[str, Any]
    found, _ = json.JSONDecoder().raw_decode(data[start:].decode("ascii", errors="replace"))
    return found


def _cell(path: str, sheet: Mapping[str, Any], cell: tuple[int, int] | None) -> dict[str, Any]:
    """Return the metadata of a cell of a sheet.

    Raises:
        InvalidRequestError: there is no such cell.
    """
    strengths, stroke_sizes = sheet["strengths"], sheet["stroke_sizes"]
    size = f"a sheet of {len(strengths)} columns and {len(stroke_sizes)} rows"
    if cell is None:
        raise InvalidRequestError.of(path, f"is {size}: name a cell by its column and row, such as {path}:1,1")
    column, row = cell
    if not (1 <= column <= len(strengths) and 1 <= row <= len(stroke_sizes)):
        raise InvalidRequestError.of(path, f"is {size}, counted from 1: it has no cell {column},{row}")
    varied = {"strength": strengths[column - 1], "stroke_size": stroke_sizes[row - 1]}
    return {_PICTURE: sheet[_SHEET], "output": {}} | dict(sheet) | {"options": sheet["options"] | varied}


def _metadata_of(found: Mapping[str, Any]) -> Metadata:
    return Metadata(
        version=str(found[_PICTURE]),
        weights=Weights(**found["weights"]),
        options=_known(TransferOptions, found["options"]),
        output=_known(OutputOptions, found["output"]),
        style_weights=tuple(float(style["weight"]) for style in found["styles"]),
        style_scales=tuple(float(style["scale"]) for style in found["styles"]),
    )


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
