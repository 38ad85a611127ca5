"""Decoding, encoding and resizing of pictures with OpenCV."""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Pixels of a picture, (height, width, 3) in the order blue, green, red, or of a mask, (height, width)."""


def decode(data: bytes) -> Pixels | None:
    """Return the pixels of an encoded picture, turned upright; None if it cannot be decoded."""
    encoded = np.frombuffer(data, np.uint8)
    # For an empty file, OpenCV would raise an error of its caller.
    pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if data else None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def decode_mask(data: bytes) -> Pixels | None:
    """Return the brightness of an encoded picture, (height, width), turned upright; transparent pixels are black."""
    pixels = decode(data)
    if pixels is None:
        return None
    mask = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if raw is not None and raw.shape == (*mask.shape, 4):
        opaque = raw[..., 3] / (255 if raw.dtype == np.uint8 else 65535)
        mask = np.asarray(np.rint(mask * opaque), np.uint8)
    return mask


def encode(pixels: Pixels) -> bytes:
    """Return a PNG."""
    # These files live for one request, so the fastest compression is best.
    _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return the picture resized to another size in pixels."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width < pixels.shape[1]
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=filter_), np.uint8)
