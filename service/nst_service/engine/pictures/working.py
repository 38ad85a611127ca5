"""Pictures of a request at their working sizes: decoded, made opaque or a mask if that is their role, and resampled."""

from collections.abc import Sequence
from enum import StrEnum

from PIL.Image import Image

from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.picture import Picture, resampled
from nst_service.engine.sizes import Size


class Role(StrEnum):
    """The roles of pictures in a request."""

    CONTENT = "content"
    """A picture that keeps its transparency."""
    OPAQUE = "opaque"
    """A picture that is laid on a white ground."""
    MASK = "mask"
    """A picture whose brightness counts."""


def render(data: bytes, role: Role, sizes: Sequence[Size], *, max_pixels: int) -> Picture | Image:
    """Decode a picture and resample it to its working size.

    Args:
        data: the encoded picture.
        role: the role of the picture.
        sizes: sizes that the picture is resampled to in turn. The last one is the working size.
        max_pixels: width times height beyond which the picture is refused.

    Returns:
        The picture; for a mask its brightness in mode L.

    Raises:
        PictureError: the picture cannot be decoded, or a mask is black everywhere.
    """
    picture = decode(data, max_pixels=max_pixels)
    if role is Role.MASK:
        return _render_mask(picture.to_mask(), sizes)
    if role is Role.OPAQUE:
        picture = picture.flattened()
    for size in sizes:
        picture = picture.resized(size)
    return picture


def _render_mask(mask: Image, sizes: Sequence[Size]) -> Image:
    for number, size in enumerate(sizes):
        mask = resampled(mask, size)
        if number == 0 and mask.getextrema() == (0, 0):
            raise PictureError("is black everywhere; it applies where it is white")
    return mask
