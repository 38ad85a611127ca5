"""The bytes of a picture file to pixels. Hostile bytes end in a PictureError and in nothing else."""

import io
import math
import struct
from typing import Any, cast

from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PREFIXES,
    STRIPOFFSETS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
)

from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.formats import READ_FORMATS, names_of
from nst_service.engine.pictures.picture import Picture, set_aside
from nst_service.engine.sizes import Size

_UPRIGHT_BY_ORIENTATION = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


# What files are made of, far beyond what real ones need. Decoding costs more for each part than its bytes suggest:
# every scan of a JPEG passes over the whole picture, every EXIF segment is appended to a growing copy, a profile of
# 1 KB may inflate to 1 MB, and the strips of a TIFF may all name the same bytes. libtiff allows 100 scans, too.
_COSTLY_PARTS = ((b"\xff\xd8", b"\xff\xda\x00"), (b"\xff\xd8", b"Exif\0\0"), (b"\x89PNG", b"iCCP"))


_MAX_COSTLY_PARTS = 100


_TIFF_PIECES = (STRIPOFFSETS, TILEOFFSETS)


_MAX_TIFF_PIECES = 100_000


_MAX_TIFF_OVERDRAW = 8  # One pass for each of up to six planes is normal.


_MAX_READS = 500_000


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a PNG, JPEG, WebP or TIFF: upright by its EXIF orientation, in sRGB by its ICC profile.

    Args:
        data: the whole file; of a sequence the first frame is used.
        max_pixels: width times height beyond which it is refused, before any pixel is decoded.

    Raises:
        PictureError: empty, of another format, damaged, truncated, or too large.
    """
    if not data:
        raise PictureError(f"is empty, accepted are {names_of(READ_FORMATS)}")
    try:
        _check_parts(data)
        with Image.open(_Reader(data), formats=[accepted.pillow_name for accepted in READ_FORMATS]) as image:
            _check_size(Size(*image.size), max_pixels)
            _check_tiles(image, max_pixels)
            image.load()
            return _normalised(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"is no picture that can be read, accepted are {names_of(READ_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"has far too many pixels, this server accepts at most {max_pixels}") from error
    except MemoryError as error:
        raise PictureError("takes more memory to decode than this server has") from error
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes.
        raise PictureError("is damaged or truncated") from error


class _Reader(io.BytesIO):
    """A file that can only be read so many times: parsing millions of tiny parts takes minutes."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MAX_READS:
            raise PictureError("has far too many parts for a picture")
        return super().read(size)


def _check_parts(data: bytes) -> None:
    """Refuse files made of so many parts that decoding them takes minutes or all memory."""
    for signature, part in _COSTLY_PARTS:
        if data.startswith(signature) and data.count(part) > _MAX_COSTLY_PARTS:
            raise PictureError("has far too many parts for a picture")
    if data.startswith(tuple(PREFIXES)) and _count_tiff_pieces(data) > _MAX_TIFF_PIECES:
        raise PictureError(f"has too many strips or tiles, accepted are at most {_MAX_TIFF_PIECES}")


def _count_tiff_pieces(data: bytes) -> int:
    """Count the strips or tiles of the first frame, from its directory alone."""
    order = "<" if data.startswith(b"II") else ">"
    # Tells BigTIFF in the way that Pillow does, so that both look at the same directory.
    header, length, entry = ("8xQ", "Q", "HHQ8x") if data[2] == 43 else ("4xI", "H", "HHI4x")
    (start,) = struct.unpack_from(order + header, data)
    (entries,) = struct.unpack_from(order + length, data, start)
    start += struct.calcsize(order + length)
    directory = data[start : start + entries * struct.calcsize(order + entry)]
    counts = (count for tag, _, count in struct.iter_unpack(order + entry, directory) if tag in _TIFF_PIECES)
    return max(counts, default=0)


def _check_size(size: Size, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureError(
            f"has {width}x{height} px, {width * height} in all, this server accepts at most {max_pixels}"
        )


def _check_tiles(image: ImageFile, max_pixels: int) -> None:
    """Refuse a TIFF whose strips or tiles are far larger than the picture, or cover it again and again."""
    tags = _tiff_tags(image)
    if tags.get(TILEWIDTH, 1) * tags.get(TILELENGTH, 1) > max_pixels:
        raise PictureError(f"has tiles of too many pixels, this server accepts at most {max_pixels}")
    boxes = (tile.extents for tile in image.tile if tile.extents)
    covered = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if covered > _MAX_TIFF_OVERDRAW * math.prod(image.size):
        raise PictureError("has strips or tiles that overlap")


def _tiff_tags(image: Image.Image) -> dict[int, Any]:
    """Return the tags of a TIFF, nothing for another format."""
    return getattr(image, "tag_v2", {})


def _normalised(image: Image.Image) -> Picture:
    colours, alpha = _split(image)
    rgb = _to_srgb(colours, image.info.get("icc_profile"))
    turn = _UPRIGHT_BY_ORIENTATION.get(_orientation(image))
    if turn is not None:
        rgb = rgb.transpose(turn)
        alpha = alpha and alpha.transpose(turn)
    return Picture(rgb) if alpha is None else set_aside(rgb, alpha)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTag.Orientation)
    except Exception:  # Damaged EXIF data are no reason to refuse a good picture.
        return None


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours, in a mode that colour management knows, and the transparency in mode L."""
    if image.mode == "F":
        raise PictureError("has floating-point pixels, accepted are integers of up to 16 bits per channel")
    if image.mode.startswith("I"):
        return _split_16_bits(image)
    if image.mode == "La":  # Premultiplied; converts to nothing else.
        image = image.convert("LA")
    is_grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return image.convert("L") if is_grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("CMYK", "LAB"):
        return image, None
    return image.convert("L" if is_grey else "RGB"), None


def _split_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale grey of more than 8 bits to 8 bits. Pillow leaves 12-bit and white-is-zero TIFFs as they are stored."""
    tags = _tiff_tags(image)
    white = 4095 if tags.get(BITSPERSAMPLE) == (12,) else 65535
    grey = image.convert("I")
    lowest, highest = cast(tuple[int, int], grey.getextrema())
    if lowest < 0 or highest > white:
        raise PictureError("has pixels of more than 16 bits per channel or below zero, accepted are 0 to 65535")
    scale = [round(min(value, white) * 255 / white) for value in range(65536)]
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:
        scale = [255 - value for value in scale]
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey.point(scale, "L"), None
    return grey.point(scale, "L"), grey.point([255 * (value != transparent) for value in range(65536)], "L")


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Convert a picture in mode L, RGB, CMYK or LAB to RGB."""
    if image.mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if isinstance(profile, bytes):
        try:
            return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (OSError, ValueError, ImageCms.PyCMSError):  # Damaged, or made for another mode than the picture's.
            pass
    return image.convert("RGB")


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    rgb = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert rgb is not None  # None only for a conversion in place.
    return rgb
