"""A sheet of an exploration: a labelled grid of its pictures, in one file."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nst_client.exploration import Exploration
from nst_client.files import write_atomically
from nst_client.media.pictures import Size, decode, encode, fit
from nst_client.metadata import describe_sheet
from nst_client.options import PictureFormat

_LONGEST_CELL = 512
"""Longest edge of a cell in pixels. Larger results are reduced."""
_GAP = 8
_FONT_SIZE = 16
_LINE = _FONT_SIZE + _GAP // 2
"""The height of a line of text in pixels."""
_MISSING = "#dddddd"
"""The colour of cells without a result."""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A sheet that was written."""

    media_type: str
    """The media type, such as "image/jpeg"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    has_metadata: bool
    """Whether the file says how its cells were made."""
    data: bytes = field(repr=False)
    """The encoded file."""

    @property
    def sha256(self) -> str:
        """The SHA-256 of `data`, in lower-case hex."""
        return hashlib.sha256(self.data).hexdigest()


class SheetWriter:
    """Writes the pictures of an exploration into one file."""

    def __init__(self, path: Path, picture_format: PictureFormat, *, quality: int | None, metadata: bool):
        self._path = path
        self._format = picture_format
        self._quality = quality
        self._metadata = metadata

    def write(self, exploration: Exploration) -> Sheet:
        """Draw the cells that are completed, and write the sheet.

        Raises:
            OSError: the file cannot be written, or a result is no picture.
            ValueError: no cell is completed.
        """
        if not exploration.results:
            raise ValueError("no cell of the exploration is completed")
        grid = exploration.grid
        metadata: str | None = None
        if self._metadata:
            any_result = next(iter(exploration.results.values()))
            metadata = describe_sheet(any_result.data, grid.strengths, grid.stroke_sizes, exploration.options)
        image = _drawn(exploration)
        data = encode(image, self._format, quality=self._quality, description=metadata)
        write_atomically(self._path, data)
        return Sheet(
            media_type=f"image/{self._format}",
            width=image.width,
            height=image.height,
            has_metadata=metadata is not None,
            data=data,
        )


def _drawn(exploration: Exploration) -> Image.Image:
    """Return the grid, with the strength above each column, the stroke size left of each row and the cells' numbers."""
    grid = exploration.grid
    pictures = {cell: _picture(result.data) for cell, result in exploration.results.items()}
    # Short memory can make some cells smaller.
    size = max(picture.size for picture in pictures.values())
    font = ImageFont.load_default(_FONT_SIZE)
    columns = [f"strength {strength:g}" for strength in grid.strengths]
    rows = [f"stroke\nsize {stroke_size:g}" for stroke_size in grid.stroke_sizes]
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    left = round(max(draw.multiline_textbbox((0, 0), text, font=font)[2] for text in rows)) + 2 * _GAP
    width = max(size[0], *(round(font.getlength(text)) for text in columns)) + _GAP
    top, height = _LINE + _GAP, max(size[1] + _LINE, 2 * _LINE) + _GAP
    sheet = Image.new("RGB", (left + len(columns) * width, top + len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, text in enumerate(columns):
        draw.text((left + column * width + width // 2, _GAP // 2), text, fill="black", font=font, anchor="ma")
    for row, text in enumerate(rows):
        draw.multiline_text((_GAP, top + row * height + size[1] // 2 - _LINE), text, fill="black", font=font)
    for cell in grid.cells:
        middle, upper = left + (cell.column - 1) * width + width // 2, top + (cell.row - 1) * height
        picture = pictures.get(cell) or Image.new("RGB", size, _MISSING)
        sheet.paste(picture, (middle - picture.width // 2, upper))
        number = f"{cell.column},{cell.row}"
        draw.text((middle, upper + size[1] + _GAP // 4), number, fill="black", font=font, anchor="ma")
    return sheet


def _picture(data: bytes) -> Image.Image:
    image = decode(data)
    size: Size = fit(image.size, _LONGEST_CELL)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
