"""Encoded pictures to pixels and back."""

import io

from PIL import Image

from nst_client.events import Accepted

Size = tuple[int, int]
"""Width and height in pixels."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
"""What a server may send. Pillow would try every format that it knows, and some of these start other programs."""
_QUALITY = 90
"""Of JPEG."""


def fit(size: Size, longest_edge: int) -> Size:
    """Return the size with at most this longest edge and the same shape, nowhere below one pixel."""
    factor = min(1.0, longest_edge / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def frame_size(accepted: Accepted) -> Size:
    """Return the size of the previews of the finest scale of a job."""
    size = (accepted.width, accepted.height)
    return fit(size, accepted.options.preview_size or max(size))


def decode(data: bytes, size: Size | None = None) -> Image.Image:
    """Return a picture of 8-bit RGB at a size or as large as it is, with transparency flattened on white.

    Raises:
        OSError: it is no picture, or damaged.
    """
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            pixels = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        else:
            pixels = image.convert("RGB")
    if size in (None, pixels.size):
        return pixels
    return pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def encode_jpeg(image: Image.Image) -> bytes:
    """Return a picture as a JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
