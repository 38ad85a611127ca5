"""Pixels to the bytes of a picture file. The same pixels give the same bytes."""

import io
from dataclasses import dataclass

import numpy as np
import png
import tifffile
import torch
from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.picture import on_white
from nst_service.engine.sizes import Size, fit

PREVIEW_MEDIA_TYPE = "image/jpeg"


_PREVIEW_QUALITY = 85


_PNG_KEYWORD = "nst"


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A small JPEG."""

    data: bytes
    width: int
    height: int


def encode(
    pixels: Tensor,
    *,
    format: OutputFormat,  # noqa: A002
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
        bits: per channel, 8, or 16 where the format can hold them.
        alpha: transparency of the same size, mode L: flattened on white in JPEG, kept in the others.
        description: ASCII that the file carries: a PNG text "nst", the EXIF or TIFF image description of the others.
    """
    if bits == 16:
        return _encode_deep(pixels, format, alpha, description)
    image = _to_image(pixels)
    if alpha is not None:
        if format is OutputFormat.JPEG:
            image = on_white(image, alpha)
        else:
            image.putalpha(alpha)
    buffer = io.BytesIO()
    exif = Image.Exif()
    if description is not None:
        exif[ExifTag.ImageDescription] = description
    match format:
        case OutputFormat.PNG:
            text = PngInfo()
            if description is not None:
                text.add_text(_PNG_KEYWORD, description)
            # A third of the time of the default level on smooth pictures, for files 5 % larger.
            image.save(buffer, "PNG", compress_level=4, pnginfo=text)
        case OutputFormat.JPEG:
            # Neither optimised nor progressive: Pillow's buffer for these is too small for noisy pictures.
            image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, exif=exif)
        case OutputFormat.WEBP:
            # Half the time of the default method, for files of the same size.
            image.save(buffer, "WEBP", quality=quality, method=2, exif=exif)
        case OutputFormat.TIFF:
            image.save(buffer, "TIFF", compression="tiff_adobe_deflate", description=description or "")
    return buffer.getvalue()


def _encode_deep(pixels: Tensor, kind: OutputFormat, alpha: Image.Image | None, description: str | None) -> bytes:
    """Encode with 16 bits per channel, which Pillow cannot."""
    levels = (pixels.detach()[0].double().clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy()
    if alpha is not None:
        levels = np.dstack([levels, 257.0 * np.asarray(alpha)])
    levels = np.ascontiguousarray(levels, np.uint16)
    height, width, channels = levels.shape
    buffer = io.BytesIO()
    if kind is OutputFormat.TIFF:
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
    size = Size.of(pixels)
    pixels = pixels.detach().float().clamp(0, 1)
    if max(size) > longest_edge:
        size = fit(size, longest_edge)
        pixels = functional.interpolate(pixels, (size.height, size.width), mode="bilinear", antialias=True)
    data = encode(pixels, format=OutputFormat.JPEG, quality=_PREVIEW_QUALITY)
    return EncodedPreview(data, *size)


def _to_image(pixels: Tensor) -> Image.Image:
    levels = (pixels.detach()[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
