"""A recorder that keeps the previews of a run as files, with a contact sheet."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from nst_client.events import Accepted, Event, Preview
from nst_client.files import write_atomically
from nst_client.media.pictures import Size, decode, encode_jpeg, fit, frame_size
from nst_client.result import Result

CONTACT_SHEET = "contact-sheet.jpg"
"""The file name of the contact sheet."""

_CELLS = 16
_COLUMNS = 4
_CELL_EDGE = 256
_NARROWEST_CELL = 64
"""The least width of a cell in pixels, so that the number fits under a tall picture."""
_GAP = 8
_FONT_SIZE = 16


class Frames:
    """Writes every preview and the final picture into a folder. File names are numbers of iterations."""

    def __init__(self, path: Path):
        self.path = path
        self._size: Size = (1, 1)
        """The size of previews, known from Accepted, the first event."""
        self._files: dict[int, Path] = {}

    def event(self, event: Event) -> None:
        """Write a preview."""
        match event:
            case Accepted():
                self._size = frame_size(event)
            case Preview():
                self._write(event.iteration, event.data)

    def end(self, result: Result | None) -> bool:
        """Write the final picture at the size of the previews, and the contact sheet."""
        if result is not None:
            self._write(result.completed.iterations, encode_jpeg(decode(result.data, self._size)))
        if not self._files:
            return False
        write_atomically(self.path / CONTACT_SHEET, encode_jpeg(_contact_sheet(self._files)))
        return True

    def _write(self, iteration: int, data: bytes) -> None:
        self.path.mkdir(exist_ok=True)
        path = self.path / f"{iteration:06}.jpg"
        write_atomically(path, data)
        self._files[iteration] = path


def _contact_sheet(files: Mapping[int, Path]) -> Image.Image:
    """Return a grid of evenly chosen frames, from the first to the last, with their iterations."""
    iterations = _evenly(sorted(files), _CELLS)
    # The last frame is the largest: those of coarse scales are smaller.
    size = fit(decode(files[iterations[-1]].read_bytes()).size, _CELL_EDGE)
    width, height = max(size[0], _NARROWEST_CELL) + _GAP, size[1] + _FONT_SIZE + 2 * _GAP
    columns = min(_COLUMNS, len(iterations))
    rows = -(-len(iterations) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for index, iteration in enumerate(iterations):
        row, column = divmod(index, columns)
        middle, top = column * width + (width + _GAP) // 2, row * height + _GAP
        sheet.paste(decode(files[iteration].read_bytes(), size), (middle - size[0] // 2, top))
        draw.text((middle, top + size[1] + _GAP // 2), str(iteration), fill="black", font=font, anchor="ma")
    return sheet


def _evenly(values: list[int], count: int) -> list[int]:
    """Return at most `count` evenly chosen values, including the first and the last."""
    if len(values) <= count:
        return values
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]
