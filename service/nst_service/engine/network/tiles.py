"""A picture in tiles, so that the network never holds all of it at once.

What a layer computes in the core of a tile depends only on the core and a halo around it. With the halo, the features
of a core are exactly those of the whole picture, and so is the gradient that is added up over all tiles.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from nst_service.engine.network.layers import Window, block_of, convs_through, opens_block
from nst_service.engine.sizes import Size

GRID = 16
"""Pixels: tiles begin at multiples, so that every pooling of the network finds the windows of the whole picture."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the picture, its core, with a halo around it."""

    rows: range
    """Rows of the picture, halo included."""
    columns: range
    """Columns of the picture, halo included."""
    core_rows: range
    """Rows of the picture, without the halo."""
    core_columns: range
    """Columns of the picture, without the halo."""

    @property
    def pixels(self) -> Window:
        """Rows and columns of the picture, halo included."""
        return Window(slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop))

    def core_in_picture(self, layer: str) -> Window:
        """Return the core within the features of the whole picture."""
        return Window(_at(layer, self.core_rows), _at(layer, self.core_columns))

    def core_in_part(self, layer: str, part: range) -> tuple[Window, Window] | None:
        """Return where the core lies in some rows of the tile's features, and this piece of it in the whole picture.

        None where there is nothing of it in these rows.
        """
        core = _at(layer, self.core_rows, self.rows.start)
        columns = _at(layer, self.core_columns, self.columns.start)
        first, end = max(core.start, part.start), min(core.stop, part.stop)
        if first >= end:
            return None
        in_picture = self.core_in_picture(layer)
        down = in_picture.rows.start - core.start
        inside = Window(slice(first - part.start, end - part.start), columns)
        return inside, Window(slice(first + down, end + down), in_picture.columns)


def tiles(size: Size, tile_size: int, layers: Collection[str]) -> Iterator[Tile]:
    """Cut a picture into tiles.

    Args:
        size: the size of the picture.
        tile_size: the edge of a tile's core in pixels, a multiple of GRID.
        layers: the layers that are computed; the halo is as wide as the deepest of them needs.
    """
    width, height = size
    halo = halo_of(layers)
    for rows, core_rows in spans(height, tile_size, halo):
        for columns, core_columns in spans(width, tile_size, halo):
            yield Tile(rows, columns, core_rows, core_columns)


def count_tiles(size: Size, tile_size: int) -> int:
    """Return how many tiles `tiles` cuts a picture into."""
    return math.prod(-(-length // tile_size) for length in size)


def halo_of(layers: Collection[str]) -> int:
    """Return how many pixels beyond its own a feature of the deepest layer sees, rounded up to GRID."""
    radius, step = 0, 1
    for conv in convs_through(layers):
        if opens_block(conv):
            radius += step
            step *= 2
        radius += step
    return -(-radius // GRID) * GRID


def spans(length: int, tile_size: int, halo: int) -> Iterator[tuple[range, range]]:
    """Cut a length in pixels into pieces; yield each with its halo and without."""
    for start in range(0, length, tile_size):
        stop = min(start + tile_size, length)
        yield range(max(0, start - halo), min(length, stop + halo)), range(start, stop)


def _at(layer: str, pixels: range, origin: int = 0) -> slice:
    """Return a span of pixels, counted from an origin, as a span of a layer's features."""
    shrink = block_of(layer) - 1
    return slice((pixels.start - origin) >> shrink, -((origin - pixels.stop) >> shrink))
