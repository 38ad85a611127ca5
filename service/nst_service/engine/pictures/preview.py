"""Previews: small JPEGs of pictures that are being worked on."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.formats import WRITTEN_FORMATS
from nst_service.engine.sizes import Size, fit

PREVIEW_MEDIA_TYPE = WRITTEN_FORMATS[OutputFormat.JPEG].media_type

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A preview as the bytes of a JPEG file."""

    data: bytes
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""


def preview(pixels: Tensor, *, longest_edge: int) -> EncodedPreview:
    """Encode pixels (1, 3, H, W) as a JPEG with at most this longest edge; smaller pictures are not enlarged."""
    size = Size.of(pixels)
    pixels = pixels.detach().float().clamp(0, 1)
    if max(size) > longest_edge:
        size = fit(size, longest_edge)
        pixels = functional.interpolate(pixels, size.shape, mode="bilinear", antialias=True)
    data = encode(pixels, format=OutputFormat.JPEG, quality=_QUALITY)
    return EncodedPreview(data, size.width, size.height)
