"""The text that a picture file carries, in the place that its format has for one.

PNG files have a text chunk "nst", the others the image description of EXIF or TIFF.
"""

import io

import png
from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.PngImagePlugin import PngInfo

_PNG_KEYWORD = "nst"


def png_text(description: str | None) -> PngInfo:
    """Return the text chunks of a PNG that Pillow writes; `description` is ASCII."""
    text = PngInfo()
    if description is not None:
        text.add_text(_PNG_KEYWORD, description)
    return text


def exif(description: str | None) -> Image.Exif:
    """Return the EXIF data of a file that Pillow writes; `description` is ASCII."""
    data = Image.Exif()
    if description is not None:
        data[ExifTag.ImageDescription] = description
    return data


def with_png_text(data: bytes, description: str | None) -> bytes:
    """Return the bytes of a PNG with a text chunk after its header; `description` is ASCII."""
    if description is None:
        return data
    chunks = list(png.Reader(bytes=data).chunks())
    chunks.insert(1, (b"tEXt", f"{_PNG_KEYWORD}\0{description}".encode("latin-1")))
    png.write_chunks(described := io.BytesIO(), chunks)
    return described.getvalue()
