"""The orientation of a picture by its EXIF data."""

from typing import Any

from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.Image import Transpose

_UPRIGHT_BY_ORIENTATION = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_SWAPPING = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)


def upright_transpose(image: Image.Image) -> Transpose | None:
    """Return the operation that turns a picture upright, or None where it is upright or does not say."""
    return _UPRIGHT_BY_ORIENTATION.get(_orientation(image))


def is_on_its_side(image: Image.Image) -> bool:
    """Return whether turning a picture upright swaps its width and height."""
    return upright_transpose(image) in _SWAPPING


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTag.Orientation)
    except Exception:  # Damaged EXIF data are no reason to refuse a good picture.
        return None
