"""Pairs of a content and a style picture, and the TOML file that lists them.

    [[pair]]
    name = "cat-mosaic"
    kind = "animal"
    content = "content/cat.png"
    style = "style/mosaic.png"
    sizes = [256, 512]

Paths are relative to the file.
"""

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any


class PairsError(Exception):
    """A pairs file is wrong. The message says how."""


class Kind(StrEnum):
    """What the content of a pair shows."""

    PERSON = "person"
    ANIMAL = "animal"
    BUILDING = "building"
    LANDSCAPE = "landscape"
    THING = "thing"
    DRAWING = "drawing"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A content and a style picture."""

    name: str
    """The name of the pair, which names files, too."""
    kind: Kind
    content: Path
    style: Path
    sizes: tuple[int, ...]
    """The longest edges in pixels at which the pair is stylised."""


def read_pairs(path: Path, only: Collection[str] = ()) -> list[Pair]:
    """Return the pairs of a file, or some of them by name.

    Raises:
        PairsError: the file is wrong, a picture is missing, or there is no such pair.
    """
    try:
        entries = tomllib.loads(path.read_text()).get("pair", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise PairsError(f"{path}: {error}") from error
    pairs = [_pair(entry, path) for entry in entries]
    names = [pair.name for pair in pairs]
    if not pairs or len(set(names)) < len(names):
        raise PairsError(f"{path}: has {len(set(names))} names for {len(names)} pairs; accepted is one for each")
    if unknown := set(only) - set(names):
        raise PairsError(f"{path}: has no pair {', '.join(sorted(unknown))}; it has {', '.join(names)}")
    return [pair for pair in pairs if not only or pair.name in only]


def _pair(entry: dict[str, Any], path: Path) -> Pair:
    expected = {"name", "kind", "content", "style", "sizes"}
    if entry.keys() != expected:
        raise PairsError(f"{path}: a pair has {', '.join(sorted(entry))}; accepted is {', '.join(sorted(expected))}")
    name, sizes = str(entry["name"]), entry["sizes"]
    if entry["kind"] not in set(Kind):
        raise PairsError(f"{path}: {name}.kind is {entry['kind']!r}; accepted are {', '.join(Kind)}")
    if not isinstance(sizes, list) or not all(isinstance(size, int) and size > 0 for size in sizes) or not sizes:
        raise PairsError(f"{path}: {name}.sizes is {sizes!r}; accepted is a list of edges in pixels")
    pictures = {field: path.parent / str(entry[field]) for field in ("content", "style")}
    for field, picture in pictures.items():
        if not picture.is_file():
            raise PairsError(f"{path}: {name}.{field} is {picture}, which is no file")
    return Pair(name=name, kind=Kind(entry["kind"]), sizes=tuple(sizes), **pictures)


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a pairs file. The pictures must lie below its folder."""
    blocks = []
    for pair in pairs:
        content, style = (picture.relative_to(path.parent).as_posix() for picture in (pair.content, pair.style))
        blocks.append(
            f'[[pair]]\nname = "{pair.name}"\nkind = "{pair.kind}"\ncontent = "{content}"\n'
            f'style = "{style}"\nsizes = {list(pair.sizes)}\n'
        )
    path.write_text("\n".join(blocks))
