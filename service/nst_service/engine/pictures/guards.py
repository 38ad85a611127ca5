"""Limits on what a picture file is made of, which hostile files exceed.

Decoding costs more for each part of a file than its bytes suggest: every scan of a JPEG passes over the whole picture,
every EXIF segment is appended to a growing copy, a profile of 1 KB may inflate to 1 MB, and all strips of a TIFF may
name the same bytes. The limits are far beyond what real files need.
"""

import io
import math

from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH

from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.tiff import count_pieces, is_tiff, tags_of
from nst_service.engine.sizes import Size

_COSTLY_PARTS = ((b"\xff\xd8", b"\xff\xda\x00"), (b"\xff\xd8", b"Exif\0\0"), (b"\x89PNG", b"iCCP"))
"""Beginnings of a file, each with that of a costly part: scans and EXIF segments of a JPEG, profiles of a PNG."""
_MAX_COSTLY_PARTS = 100
"""Most parts of one kind. libtiff allows 100 scans, too."""
_MAX_TIFF_PIECES = 100_000
"""Most strips or tiles."""
_MAX_TIFF_OVERDRAW = 8
"""Most times that strips or tiles may cover the picture; one pass for each of up to six planes is normal."""
_MAX_READS = 500_000
"""Most reads of a file. Each chunk or segment takes a few."""


class BoundedReader(io.BytesIO):
    """A file that can be read a limited number of times: parsing millions of tiny parts takes minutes."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, as `io.BytesIO.read` does.

        Raises:
            PictureError: the limit is exceeded.
        """
        self._reads += 1
        if self._reads > _MAX_READS:
            raise PictureError("has far too many parts for a picture")
        return super().read(size)


def check_parts(data: bytes) -> None:
    """Raise PictureError for a file of so many parts that decoding it takes minutes or all memory."""
    for signature, part in _COSTLY_PARTS:
        if data.startswith(signature) and data.count(part) > _MAX_COSTLY_PARTS:
            raise PictureError("has far too many parts for a picture")
    if is_tiff(data) and count_pieces(data) > _MAX_TIFF_PIECES:
        raise PictureError(f"has too many strips or tiles; at most {_MAX_TIFF_PIECES} are accepted")


def check_size(size: Size, max_pixels: int) -> None:
    """Raise PictureError for a picture of more than so many pixels."""
    pixels = size.width * size.height
    if pixels > max_pixels:
        raise PictureError(
            f"has {size.width}x{size.height} px, {pixels} in all; this server accepts at most {max_pixels}"
        )


def check_tiles(image: ImageFile, max_pixels: int) -> None:
    """Raise PictureError for a TIFF whose tiles have more than so many pixels, or overlap again and again."""
    tags = tags_of(image)
    if tags.get(TILEWIDTH, 1) * tags.get(TILELENGTH, 1) > max_pixels:
        raise PictureError(f"has tiles of too many pixels; this server accepts at most {max_pixels}")
    boxes = (tile.extents for tile in image.tile if tile.extents)
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if covered > _MAX_TIFF_OVERDRAW * math.prod(image.size):
        raise PictureError("has strips or tiles that overlap")
