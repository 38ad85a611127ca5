"""Decoding and encoding of pictures with Pillow."""

import io

from PIL import Image

from nst_client.events import Accepted
from nst_client.options import PictureFormat

Size = tuple[int, int]
"""Width and height in pixels."""

_FORMATS = tuple(kind.upper() for kind in PictureFormat)
"""The names in Pillow of the formats that a server may send. By itself, Pillow would try every format that it knows,
and some of them start other programs."""
_QUALITY = 90
"""The quality of JPEG files."""


def fit(size: Size, longest_edge: int) -> Size:
    """Return the size, reduced to at most this longest edge. Both edges keep at least one pixel."""
    factor = min(1.0, longest_edge / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def frame_size(accepted: Accepted) -> Size:
    """Return the size of the previews at the finest scale of a job."""
    size = (accepted.width, accepted.height)
    return fit(size, accepted.options.preview_size or max(size))


def decode(data: bytes, size: Size | None = None) -> Image.Image:
    """Return a picture in 8-bit RGB, with transparency flattened on white.

    Args:
        data: the encoded file.
        size: the size of the returned picture. Default: its own size.

    Raises:
        OSError: the file is not a picture, or is damaged.
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
