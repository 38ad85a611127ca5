"""The sizes of pictures, from the headers of their files: no pixel is decoded."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import cast

from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile

from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import opened
from nst_service.engine.pictures.orientation import is_on_its_side
from nst_service.engine.pictures.tiff import tags_of
from nst_service.engine.sizes import Size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000
"""Most chunks of a PNG. An encoder that writes pixels in chunks of 8 KiB makes that many for 800 MB."""
_TEXTS = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
"""The chunks of a PNG that may tell its orientation."""


def read_size(data: bytes, *, max_pixels: int) -> Size:
    """Return the size that `decode` gives a picture, upright.

    Args:
        data: the whole file; of a sequence the first frame is used.
        max_pixels: width times height beyond which it is refused.

    Raises:
        PictureError: the file is empty, of another format, too large, or its header is damaged.
    """
    with opened(data, max_pixels=max_pixels) as image:
        size = Size(*image.size)
        return Size(size.height, size.width) if _swaps(image, data) else size


def _swaps(image: ImageFile, data: bytes) -> bool:
    """Return whether a picture gets another width and height than those that Pillow tells before it decodes."""
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow decodes the pixels in order to look for EXIF data behind them.
        with Image.open(io.BytesIO(_with_one_pixel(data))) as single:
            return is_on_its_side(single)
    # Pillow has turned the size of a TIFF by its tag already.
    return is_on_its_side(image) and ExifTag.Orientation not in tags_of(image)


def _with_one_pixel(data: bytes) -> bytes:
    """Return a PNG of one pixel with those chunks of another PNG that may tell its orientation."""
    chunks = [_SIGNATURE, _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))]
    pixel = _chunk(b"IDAT", zlib.compress(bytes(2)))
    is_animated = False
    for kind, chunk in _chunks_of(data):
        if kind == b"acTL":
            is_animated = True
        elif kind == b"IDAT" and pixel:
            chunks.append(pixel)
            pixel = b""
        elif kind == b"fcTL" and is_animated and not pixel:
            # The next frame, which Pillow does not read.
            break
        elif kind in _TEXTS:
            chunks.append(bytes(chunk))
    return b"".join([*chunks, pixel, _chunk(b"IEND", b"")])


def _chunks_of(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the type and the bytes of each chunk of a PNG, as far as it goes."""
    view, start = memoryview(data), len(_SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if start + 8 > len(data):
            return
        length, kind = cast(tuple[int, bytes], struct.unpack_from(">I4s", data, start))
        if kind == b"IEND":
            return
        yield kind, view[start : start + length + 12]
        start += length + 12
    raise PictureError("has far too many parts for a picture")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
