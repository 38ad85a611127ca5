"""The encoder for 16 bits per channel, which Pillow cannot write."""

import io

import numpy as np
import png
import tifffile
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.description import with_png_text


def encode_16_bits(pixels: Tensor, kind: OutputFormat, alpha: Image.Image | None, description: str | None) -> bytes:
    """Encode pixels (1, 3, H, W) as a PNG or TIFF with 16 bits per channel; the arguments are those of `encode`.

    Raises:
        ValueError: the format has no 16 bits.
    """
    levels = _levels(pixels, alpha)
    match kind:
        case OutputFormat.PNG:
            return with_png_text(_encode_png(levels), description)
        case OutputFormat.TIFF:
            return _encode_tiff(levels, description)
        case OutputFormat.JPEG | OutputFormat.WEBP:
            raise ValueError(f"{kind} has no 16 bits per channel")


def _levels(pixels: Tensor, alpha: Image.Image | None) -> NDArray[np.uint16]:
    """Return the channels (H, W, 3 or 4)."""
    levels = (pixels.detach()[0].double().clamp(0, 1) * 65535).round().permute(1, 2, 0).cpu().numpy()
    if alpha is not None:
        levels = np.dstack([levels, 257.0 * np.asarray(alpha)])
    return np.ascontiguousarray(levels, np.uint16)


def _encode_png(levels: NDArray[np.uint16]) -> bytes:
    height, width, channels = levels.shape
    buffer = io.BytesIO()
    png.Writer(width, height, greyscale=False, alpha=channels == 4, bitdepth=16, compression=4).write(
        buffer, levels.reshape(height, -1)
    )
    return buffer.getvalue()


def _encode_tiff(levels: NDArray[np.uint16], description: str | None) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        levels,
        photometric="rgb",
        extrasamples=["unassalpha"] if levels.shape[2] == 4 else None,
        compression="zlib",
        description=description or "",
        metadata=None,
        software=False,
    )
    return buffer.getvalue()
