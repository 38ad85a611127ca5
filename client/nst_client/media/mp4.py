"""A film as MP4."""

import io

import av
from av.codec.codec import UnknownCodecError
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from nst_client.media.pictures import Size, decode
from nst_client.media.timelapse import FRAMES_PER_SECOND


class Mp4:
    """A film that plays everywhere, encoded as it goes."""

    def __init__(self, size: Size):
        # Four pixels share their colour.
        self._size: Size = (max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2))
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream = self._add_stream()
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        # What frames are converted by. Players guess the matrix of a film that does not name it, and not all alike.
        self._stream.codec_context.colorspace = Colorspace.ITU601

    def add(self, data: bytes, *, frames: int) -> None:
        """Append an encoded picture."""
        pixels = decode(data, self._size).convert("RGBA").tobytes()
        for _ in range(frames):
            self._container.mux(self._stream.encode(av.VideoFrame.from_bytes(pixels, *self._size)))

    def encoded(self) -> bytes:
        """Return the file."""
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()

    def _add_stream(self) -> VideoStream:
        try:
            return self._container.add_stream("libx264", FRAMES_PER_SECOND, {"crf": "18"})
        except UnknownCodecError:  # FFmpeg can be built without it.
            return self._container.add_stream("mpeg4", FRAMES_PER_SECOND, {"qmax": "4"})
