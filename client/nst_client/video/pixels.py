"""Between encoded pictures and their pixels."""

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 3) in the order blue, green, red, or (height, width) of a mask."""


def decode(data: bytes) -> Pixels | None:
    """Return the colours of an encoded picture, upright; None where it cannot be decoded."""
    encoded = np.frombuffer(data, np.uint8)
    # OpenCV takes an empty file for a bug of its caller.
    pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if data else None
    return None if pixels is None else np.asarray(pixels, np.uint8)


def encode(pixels: Pixels) -> bytes:
    """Return a PNG."""
    # These files live for one request: the fastest compression.
    _, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return encoded.tobytes()


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return a picture at another size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width < pixels.shape[1]
    filter_ = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=filter_), np.uint8)
