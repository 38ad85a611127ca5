"""The styles of a frame in two regions: what the frame before shows, too, and what has come into view.

A style loss compares statistics of the whole frame. Those of the known part match the style already, so what has come
into view would stay photographic. With a mask for each part, the statistics of each are compared for themselves (Gatys
et al. 2017, "Controlling perceptual factors in neural style transfer", section 4).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from nst_client.errors import InvalidRequestError
from nst_client.files import read_picture
from nst_client.options import Picture, Style
from nst_client.video.pixels import Pixels, decode_mask, encode, resized

_SPECK = 3
"""Edge in pixels of the smallest unknown spot that counts. Around moving things there are smaller ones."""
_MARGIN = 0.04
"""The width of the margin around what has come into view, as a share of the frame's longest edge. The statistics of a
few features alone would say little."""
_LEAST = 0.01
"""The share of a frame below which a region is not worth statistics of its own."""

Region = NDArray[np.bool_]
"""A part of a frame, (height, width)."""


def region_in_view(known: Region) -> Region | None:
    """Return the region of a frame that has come into view, with its margin; None if there is next to nothing.

    Args:
        known: where the frame before shows the same.
    """
    unknown = cv2.morphologyEx(np.asarray(~known, np.uint8), cv2.MORPH_OPEN, np.ones((_SPECK, _SPECK), np.uint8))
    if unknown.mean() < _LEAST:
        return None
    margin = max(1, round(_MARGIN * max(known.shape)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return np.asarray(cv2.dilate(unknown, disc) > 0)


def split_styles(styles: Sequence[Style], region: Region) -> list[Style]:
    """Return each style twice, with a mask for the region and one for the rest of the frame.

    A blend of styles that apply everywhere has one target, which masks would take apart. It stays as it is.

    Args:
        styles: the styles, with the bytes of their pictures and masks.
        region: the region of the frame.

    Raises:
        InvalidRequestError: a mask is not a picture.
    """
    is_blend = sum(style.mask is None for style in styles) > 1
    return [
        part
        for index, style in enumerate(styles)
        for part in ([style] if is_blend and style.mask is None else _parts(f"styles[{index}].mask", style, region))
    ]


def _parts(field: str, style: Style, region: Region) -> Iterator[Style]:
    """Yield a style with the mask of each part of the frame that it applies to. The parts share its weight by area."""
    mask = _mask(field, style.mask, region.shape)
    area = int(mask.sum(dtype=np.int64))
    if area == 0:
        yield style  # The server says what is wrong with it.
    for part in (region, ~region):
        within = np.asarray(np.where(part, mask, 0), np.uint8)
        if within.any():
            share = int(within.sum(dtype=np.int64)) / area
            weight = share * (1.0 if style.weight is None else style.weight)
            yield dataclasses.replace(style, mask=encode(within), weight=weight)


def _mask(field: str, mask: Picture | None, shape: tuple[int, ...]) -> Pixels:
    """Return a mask at the size of the frame, (height, width); white without one."""
    height, width = shape[:2]
    if mask is None:
        return np.full((height, width), 255, np.uint8)
    pixels = decode_mask(read_picture(field, mask))
    if pixels is None:
        raise InvalidRequestError.of(field, "is not a picture that can be read")
    return resized(pixels, width, height)
