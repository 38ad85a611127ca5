"""Decoding and encoding of pictures with Pillow."""

import io
from typing import Any

from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.PngImagePlugin import PngInfo

from nst_client.events import Accepted
from nst_client.options import PictureFormat

Size = tuple[int, int]
"""Width and height in pixels."""

_FORMATS = tuple(kind.upper() for kind in PictureFormat)
"""The names in Pillow of the formats that a server may send. By itself, Pillow would try every format that it knows,
and some of them start other programs."""
_QUALITY = 90
"""The quality of JPEG and WebP files."""
_PNG_KEYWORD = "nst"
"""The keyword of the text chunk that has the metadata."""


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
    return encode(image, PictureFormat.JPEG)


def encode(
    image: Image.Image, picture_format: PictureFormat, *, quality: int | None = None, description: str | None = None
) -> bytes:
    """Return a picture as a file.

    Args:
        image: the picture, in 8-bit RGB.
        picture_format: the format of the file.
        quality: quality of JPEG and WebP, 1 to 100. Default: 90.
        description: metadata in ASCII. A server writes its metadata into the same places.
    """
    parameters: dict[str, Any] = {"quality": quality or _QUALITY}
    if description is not None and picture_format is PictureFormat.PNG:
        parameters["pnginfo"] = text = PngInfo()
        text.add_text(_PNG_KEYWORD, description)
    elif description is not None:
        parameters["exif"] = exif = Image.Exif()
        exif[ExifTag.ImageDescription] = description
    buffer = io.BytesIO()
    image.save(buffer, picture_format.upper(), **parameters)
    return buffer.getvalue()
