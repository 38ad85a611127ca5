"""Pictures: bytes to pixels and back. Hostile bytes end in a PictureError and in nothing else."""

import io
import math
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import numpy as np
import png
import tifffile
import torch
from PIL import Image, ImageChops, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Resampling, Transpose
from PIL.ImageFile import ImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    PHOTOMETRIC_INTERPRETATION,
    PREFIXES,
    STRIPOFFSETS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
)
from torch import Tensor
from torch.nn import functional

from nst_service.engine.errors import PictureError

Size = tuple[int, int]
"""Width and height in pixels."""

PREVIEW_MEDIA_TYPE = "image/jpeg"
_PREVIEW_QUALITY = 85

_INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
INPUT_MEDIA_TYPES = tuple(f"image/{name.lower()}" for name in _INPUT_FORMATS)
"""What `decode` accepts."""

_PNG_KEYWORD = "nst"
_ACCEPTED = "accepted are PNG, JPEG, WebP and TIFF"
_WHITE = (255, 255, 255)

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


class PictureFormat(StrEnum):
    """Formats that `encode` writes."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    TIFF = "tiff"

    @property
    def media_type(self) -> str:
        """Such as "image/png"."""
        return f"image/{self}"

    @property
    def max_edge(self) -> int:
        """The longest edge that the format can hold, in pixels."""
        return {PictureFormat.JPEG: 65_500, PictureFormat.WEBP: 16_383}.get(self, 2**31 - 1)


DEEP_FORMATS = (PictureFormat.PNG, PictureFormat.TIFF)
"""Formats that can hold 16 bits per channel."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright sRGB picture with 8 bits per channel, its transparency set aside."""

    rgb: Image.Image
    """Mode RGB. White where `alpha` is 0, so that no hidden colour bleeds into what is visible."""
    alpha: Image.Image | None = None
    """Mode L, or None where the picture is opaque."""

    @classmethod
    def blank(cls, size: Size) -> "Picture":
        """Make a mid-grey opaque picture."""
        return cls(Image.new("RGB", size, (128, 128, 128)))

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.rgb.size

    @property
    def width(self) -> int:
        """In pixels."""
        return self.rgb.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.rgb.height

    def flattened(self) -> "Picture":
        """Return the picture on a white ground, opaque."""
        return self if self.alpha is None else Picture(_on_white(self.rgb, self.alpha))

    def resized(self, size: Size) -> "Picture":
        """Return the picture at another size, resampled by Lanczos' filter."""
        if size == self.size:
            return self
        if self.alpha is None:
            return Picture(resampled(self.rgb, size))
        # Pillow weighs the colours of an RGBA picture by their alpha.
        rgba = self.rgb.copy()
        rgba.putalpha(self.alpha)
        rgba = resampled(rgba, size)
        return _set_aside(rgba.convert("RGB"), rgba.getchannel("A"))

    def to_mask(self) -> Image.Image:
        """Return the brightness in mode L; what is transparent is black."""
        grey = self.rgb.convert("L")
        return grey if self.alpha is None else ImageChops.multiply(grey, self.alpha)

    def to_tensor(self) -> Tensor:
        """Return the colours, (1, 3, H, W) float32 in [0, 1], contiguous, on the CPU."""
        return torch.from_numpy(np.array(self.rgb)).permute(2, 0, 1)[None].contiguous().to(torch.float32) / 255


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A small JPEG."""

    data: bytes
    width: int
    height: int


def fit(size: Size, longest_edge: int) -> Size:
    """Return the size with this longest edge and the same shape, nowhere below one pixel; 0 keeps the size."""
    if longest_edge == 0:
        return size
    factor = longest_edge / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resampled(image: Image.Image, size: Size) -> Image.Image:
    """Return an image at another size, by Lanczos' filter."""
    return image if image.size == size else image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)


def mask_to_tensor(mask: Image.Image) -> Tensor:
    """Return a mask of mode L as (1, 1, H, W) float32 in [0, 1], on the CPU."""
    return torch.from_numpy(np.array(mask))[None, None].to(torch.float32) / 255


def scaled(size: Size, factor: float) -> Size:
    """Return the size times a factor, with the same shape, nowhere below one pixel."""
    return fit(size, max(1, round(factor * max(size))))


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a PNG, JPEG, WebP or TIFF: upright by its EXIF orientation, in sRGB by its ICC profile.

    Args:
        data: the whole file; of a sequence the first frame is used.
        max_pixels: width times height beyond which it is refused, before any pixel is decoded.

    Raises:
        PictureError: empty, of another format, damaged, truncated, or too large.
    """
    if not data:
        raise PictureError(f"is empty, {_ACCEPTED}")
    try:
        _check_parts(data)
        with Image.open(_Reader(data), formats=_INPUT_FORMATS) as image:
            _check_size(image.size, max_pixels)
            _check_tiles(image, max_pixels)
            image.load()
            return _normalised(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"is no picture that can be read, {_ACCEPTED}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"has far too many pixels, this server accepts at most {max_pixels}") from error
    except MemoryError as error:
        raise PictureError("takes more memory to decode than this server has") from error
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes.
        raise PictureError("is damaged or truncated") from error


def encode(
    pixels: Tensor,
    *,
    format: PictureFormat,  # noqa: A002
    quality: int,
    bits: int = 8,
    alpha: Image.Image | None = None,
    description: str | None = None,
) -> bytes:
    """Encode pixels. The same arguments give the same bytes.

    Args:
        pixels: (1, 3, H, W) float; clamped to [0, 1] and rounded.
        format: of the file.
        quality: of JPEG and WebP, 1 to 100; JPEG keeps the full resolution of colours from 90 on.
        bits: per channel, 8, or 16 for the `DEEP_FORMATS`.
        alpha: transparency of the same size, mode L: flattened on white in JPEG, kept in the others.
        description: ASCII that the file carries: a PNG text "nst", the EXIF or TIFF image description of the others.
    """
    if bits == 16:
        return _encode_deep(pixels, format, alpha, description)
    image = _to_image(pixels)
    if alpha is not None:
        if format is PictureFormat.JPEG:
            image = _on_white(image, alpha)
        else:
            image.putalpha(alpha)
    buffer = io.BytesIO()
    exif = Image.Exif()
    if description is not None:
        exif[ExifTag.ImageDescription] = description
    match format:
        case PictureFormat.PNG:
            text = PngInfo()
            if description is not None:
                text.add_text(_PNG_KEYWORD, description)
            # A third of the time of the default level on smooth pictures, for files 5 % larger.
            image.save(buffer, "PNG", compress_level=4, pnginfo=text)
        case PictureFormat.JPEG:
            # Neither optimised nor progressive: Pillow's buffer for these is too small for noisy pictures.
            image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, exif=exif)
        case PictureFormat.WEBP:
            # Half the time of the default method, for files of the same size.
            image.save(buffer, "WEBP", quality=quality, method=2, exif=exif)
        case PictureFormat.TIFF:
            image.save(buffer, "TIFF", compression="tiff_adobe_deflate", description=description or "")
    return buffer.getvalue()


def _encode_deep(pixels: Tensor, kind: PictureFormat, alpha: Image.Image | None, description: str | None) -> bytes:
    """Encode with 16 bits per channel, which Pillow cannot."""
    levels = (pixels.detach()[0].double().clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy()
    if alpha is not None:
        levels = np.dstack([levels, 257.0 * np.asarray(alpha)])
    levels = np.ascontiguousarray(levels, np.uint16)
    height, width, channels = levels.shape
    buffer = io.BytesIO()
    if kind is PictureFormat.TIFF:
        tifffile.imwrite(
            buffer,
            levels,
            photometric="rgb",
            extrasamples=["unassalpha"] if channels == 4 else None,
            compression="zlib",
            description=description or "",
            metadata=None,
            software=False,
        )
        return buffer.getvalue()
    png.Writer(width, height, greyscale=False, alpha=channels == 4, bitdepth=16, compression=4).write(
        buffer, levels.reshape(height, -1)
    )
    if description is None:
        return buffer.getvalue()
    chunks = list(png.Reader(bytes=buffer.getvalue()).chunks())
    chunks.insert(1, (b"tEXt", f"{_PNG_KEYWORD}\0{description}".encode("latin-1")))
    png.write_chunks(described := io.BytesIO(), chunks)
    return described.getvalue()


def preview(pixels: Tensor, *, longest_edge: int) -> EncodedPreview:
    """Encode pixels (1, 3, H, W) as a JPEG with at most this longest edge; smaller pictures are not enlarged."""
    height, width = pixels.shape[-2:]
    pixels = pixels.detach().float().clamp(0, 1)
    if max(width, height) > longest_edge:
        width, height = fit((width, height), longest_edge)
        pixels = functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    data = encode(pixels, format=PictureFormat.JPEG, quality=_PREVIEW_QUALITY)
    return EncodedPreview(data, width, height)


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
    return Picture(rgb) if alpha is None else _set_aside(rgb, alpha)


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


def _set_aside(rgb: Image.Image, alpha: Image.Image) -> Picture:
    """Keep the transparency where there is any; what is fully transparent becomes white."""
    if alpha.getextrema() == (255, 255):
        return Picture(rgb)
    rgb.paste(_WHITE, mask=alpha.point([255] + 255 * [0]))
    return Picture(rgb, alpha)


def _on_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    ground = Image.new("RGB", rgb.size, _WHITE)
    ground.paste(rgb, mask=alpha)
    return ground


def _to_image(pixels: Tensor) -> Image.Image:
    levels = (pixels.detach()[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
