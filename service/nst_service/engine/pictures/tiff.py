"""The structure of TIFF files: their tags, strips and tiles."""

import struct
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import PREFIXES, STRIPOFFSETS, TILEOFFSETS

_PIECES = (STRIPOFFSETS, TILEOFFSETS)
"""Tags that have one value for each strip or tile."""


def tags_of(image: Image.Image) -> dict[int, Any]:
    """Return the tags of a TIFF by their numbers, and nothing for another format."""
    return getattr(image, "tag_v2", {})


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins like a TIFF."""
    return data.startswith(tuple(PREFIXES))


def count_pieces(data: bytes) -> int:
    """Return the number of strips or tiles of the first frame, from its directory alone.

    Raises:
        struct.error: the file ends before its directory does.
    """
    order = "<" if data.startswith(b"II") else ">"
    # Tells BigTIFF in the way that Pillow does, so that both look at the same directory.
    header, length, entry = ("8xQ", "Q", "HHQ8x") if data[2] == 43 else ("4xI", "H", "HHI4x")
    (start,) = struct.unpack_from(order + header, data)
    (entries,) = struct.unpack_from(order + length, data, start)
    start += struct.calcsize(order + length)
    directory = data[start : start + entries * struct.calcsize(order + entry)]
    counts = (count for tag, _, count in struct.iter_unpack(order + entry, directory) if tag in _PIECES)
    return max(counts, default=0)
