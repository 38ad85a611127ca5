"""Sheets for blind judges: the same photograph painted by several contenders, shuffled and labelled A, B, C ...

Each judge gets sheets of their own, in another order and shuffled anew, so that no place and no letter is in favour of
anyone. The key, which says who is behind each label, is a file of its own.
"""

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from bench.looks.files import Pictures, load, resized
from bench.looks.measures import style_size
from bench.looks.pairs import Pair

_WIDEST = 1600
"""Pixels of a sheet's width below which pictures stand in one row."""
_MOST_ENLARGED = 2.0
"""The largest factor by which small pictures are enlarged, all alike, to fill the row."""
_HEADER = 220
"""The longest edge of content and style on a sheet, in pixels."""
_GAP = 12
_FONT_SIZE = 22

RANKS_HEADING = "# Your ranks"
"""The heading of the part of a form that a judge fills in."""
INSTRUCTIONS = f"""\
# How to judge

Each sheet shows, small and above, a photograph and the style picture of a painter. Below it, several programs have
painted the photograph in that style. You do not know which is whose. The letters mean nothing.

Look at one sheet after the other, at full size. Rank the pictures by the question: which one would you rather show to
somebody as this photograph, painted by the maker of that style picture?

- Is it painted? It has the strokes, the colours and the contrast of the style, at the right size, not those of a
  photograph under a filter.
- Is the subject whole? Faces and outlines are still what they were.
- Is it clean? Colour noise, coloured fringes, grids, wrinkles, blotches and soft or milky parts are faults.

Write one line for each sheet below, best first. `>` is "better than", `=` is "equally good". Every letter occurs once.
Example: `1-01: C > A = D > B`. Add a reason in brackets if you like: `1-01: C > A = D > B (A and D: soft)`.

{RANKS_HEADING}

"""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One sheet, and who is behind its labels."""

    name: str
    """The name of the sheet, JUDGE-NUMBER."""
    pair: str
    size: int
    labels: Mapping[str, str]
    """The contender of each label."""


class _Case(NamedTuple):
    pair: Pair
    size: int
    contenders: tuple[str, ...]


def shuffled(cases: Sequence[tuple[Pair, int, Sequence[str]]], judges: int, seed: int) -> list[Sheet]:
    """Return the sheets of all judges for cases of a pair, a size and the names of its contenders."""
    source = random.Random(seed)
    sheets = []
    for judge in range(1, judges + 1):
        order = source.sample(list(cases), len(cases))
        for number, (pair, size, contenders) in enumerate(order, 1):
            names = source.sample(list(contenders), len(contenders))
            labels = dict(zip(string.ascii_uppercase, names, strict=False))
            sheets.append(Sheet(name=f"{judge}-{number:02}", pair=pair.name, size=size, labels=labels))
    return sheets


def write_sheets(
    sheets: Sequence[Sheet], pairs: Sequence[Pair], pictures: Pictures, *, folder: Path, key: Path, seed: int
) -> None:
    """Write the sheets and a form for each judge into `folder`/JUDGE, and the key.

    Raises:
        OSError: a picture is missing, or a file cannot be written.
    """
    by_name = {pair.name: pair for pair in pairs}
    forms: dict[str, list[str]] = {}
    for sheet in sheets:
        judge = sheet.name.partition("-")[0]
        path = folder / judge / f"{sheet.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        results = {
            label: load(pictures.path(sheet.pair, sheet.size, contender)) for label, contender in sheet.labels.items()
        }
        draw_sheet(by_name[sheet.pair], results).save(path)
        forms.setdefault(judge, []).append(f"{sheet.name}: ")
    for judge, lines in forms.items():
        (folder / judge / "form.md").write_text(INSTRUCTIONS + "\n".join(lines) + "\n")
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(json.dumps({"seed": seed, "sheets": [asdict(sheet) for sheet in sheets]}, indent=2))


def read_key(path: Path) -> list[Sheet]:
    """Return the sheets of a key.

    Raises:
        OSError: the file cannot be read.
    """
    return [Sheet(**sheet) for sheet in json.loads(path.read_text())["sheets"]]


def draw_sheet(pair: Pair, results: Mapping[str, Image.Image]) -> Image.Image:
    """Return a sheet with content and style above, and the labelled results side by side.

    Small results are enlarged to fill the row. Large ones stand in two columns.
    """
    results = _enlarged(results)
    font = ImageFont.load_default(_FONT_SIZE)
    line = _FONT_SIZE + _GAP
    header = [_fitted(load(path)) for path in (pair.content, pair.style)]
    width, height = (max(edges) for edges in zip(*(result.size for result in results.values()), strict=True))
    columns = min(len(results), max(2, (_WIDEST - _GAP) // (width + _GAP)))
    rows = -(-len(results) // columns)
    top = line + max(picture.height for picture in header) + _GAP
    header_width = sum(picture.width + _GAP for picture in header) + _GAP
    size = (max(columns * (width + _GAP) + _GAP, header_width), top + rows * (height + line + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    left = _GAP
    for title, picture in zip(("photograph", "style"), header, strict=True):
        draw.text((left, _GAP // 2), title, "black", font)
        sheet.paste(picture, (left, line))
        left += picture.width + _GAP
    for index, (label, result) in enumerate(results.items()):
        x, y = _GAP + index % columns * (width + _GAP), top + index // columns * (height + line + _GAP)
        draw.text((x, y + _GAP // 2), label, "black", font)
        sheet.paste(result, (x, y + line))
    return sheet


def _enlarged(results: Mapping[str, Image.Image]) -> Mapping[str, Image.Image]:
    width = max(result.width for result in results.values())
    factor = min(_MOST_ENLARGED, ((_WIDEST - _GAP) / len(results) - _GAP) / width)
    if factor <= 1:
        return results
    return {
        label: result.resize((int(result.width * factor), int(result.height * factor)), Image.Resampling.BICUBIC)
        for label, result in results.items()
    }


def _fitted(picture: Image.Image) -> Image.Image:
    return resized(picture, style_size(picture.size, (_HEADER, _HEADER)))
