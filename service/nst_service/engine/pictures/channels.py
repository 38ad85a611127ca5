"""The channels of a decoded picture: its colours with 8 bits, and its transparency."""

from typing import cast

from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.tiff import tags_of


def split_channels(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours in mode L, RGB, CMYK or LAB, and the transparency in mode L or None.

    Raises:
        PictureError: the pixels are floating-point numbers, or integers beyond 16 bits.
    """
    if image.mode == "F":
        raise PictureError("has floating-point pixels; integers of up to 16 bits per channel are accepted")
    if image.mode.startswith("I"):
        return _split_16_bit_grey(image)
    if image.mode == "La":  # Premultiplied; converts to nothing else.
        image = image.convert("LA")
    is_grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return image.convert("L") if is_grey else rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("CMYK", "LAB"):
        return image, None
    return image.convert("L" if is_grey else "RGB"), None


def _split_16_bit_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale grey of more than 8 bits to 8 bits. Pillow leaves 12-bit and white-is-zero TIFFs as they are stored."""
    tags = tags_of(image)
    white = 4095 if tags.get(BITSPERSAMPLE) == (12,) else 65535
    grey = image.convert("I")
    lowest, highest = cast(tuple[int, int], grey.getextrema())
    if lowest < 0 or highest > white:
        raise PictureError("has pixels of more than 16 bits per channel or below zero; 0 to 65535 are accepted")
    scale = [round(min(value, white) * 255 / white) for value in range(65536)]
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:
        scale = [255 - value for value in scale]
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey.point(scale, "L"), None
    return grey.point(scale, "L"), grey.point([255 * (value != transparent) for value in range(65536)], "L")
