"""A film of a run as MP4."""

import io
from fractions import Fraction

import av

from nst_client.media.h264 import Mp4Encoder
from nst_client.media.pictures import Size, decode
from nst_client.media.timelapse import FRAMES_PER_SECOND


class Mp4:
    """A film as MP4, encoded as it grows."""

    def __init__(self, size: Size):
        self._size: Size = (max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2))
        self._buffer = io.BytesIO()
        width, height = self._size
        self._encoder = Mp4Encoder(self._buffer, width=width, height=height, rate=Fraction(FRAMES_PER_SECOND))

    def add(self, data: bytes, *, frames: int) -> None:
        """Append an encoded picture."""
        pixels = decode(data, self._size).convert("RGBA").tobytes()
        self._encoder.add(av.VideoFrame.from_bytes(pixels, *self._size), count=frames)

    def encoded(self) -> bytes:
        """Return the file."""
        self._encoder.close()
        return self._buffer.getvalue()
