"""MP4 files with H.264, encoded frame by frame.

This module needs PyAV alone, which the extras `media` and `video` have in common.
"""

from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
"""The interpolation between RGB and YUV. The default of FFmpeg makes every colour darker."""

_BT709 = 1
"""The number of BT.709 in FFmpeg's enumerations of primaries and transfer characteristics."""


class Mp4Encoder:
    """Writes frames of one size into an MP4 that common players play."""

    def __init__(self, file: Path | BinaryIO, *, width: int, height: int, rate: Fraction):
        """Begin the file.

        Args:
            file: the path of the file, or a buffer.
            width: pixels of a row; even, since H.264 has one colour for two columns.
            height: number of rows; even, since H.264 has one colour for two rows.
            rate: frames a second.

        Raises:
            av.FFmpegError: the file cannot be written.
        """
        # With the index first, a player can begin before it has everything. FFmpeg reads the file again to move the
        # index there, which it cannot do with a buffer.
        options = {"movflags": "+faststart"} if isinstance(file, Path) else {}
        self.container: OutputContainer = av.open(file, "w", format="mp4", options=options)
        """The file, for further streams. They are added before the first frame."""
        self.count = 0
        """Number of frames so far."""
        self._rate = rate
        self._stream = self._add_stream()
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        coding = self._stream.codec_context
        # Players guess the matrix of a file that does not name it, and they do not guess alike.
        coding.colorspace, coding.color_range = Colorspace.ITU709, ColorRange.MPEG
        coding.color_primaries = coding.color_trc = _BT709

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every frame in pixels."""
        return self._stream.width, self._stream.height

    def add(self, frame: av.VideoFrame, *, count: int = 1) -> None:
        """Append a picture in RGB, shown for this number of frames.

        Raises:
            av.FFmpegError: the file cannot be written.
        """
        converted = frame.reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=EXACT,
        )
        for _ in range(count):
            converted.pts, converted.time_base = self.count, 1 / self._rate
            self.container.mux(self._stream.encode(converted))
            self.count += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            av.FFmpegError: the file cannot be written.
        """
        try:
            if self.count > 0:
                self.container.mux(self._stream.encode())
        finally:
            self.container.close()

    def _add_stream(self) -> VideoStream:
        try:
            return self.container.add_stream("libx264", rate=self._rate, options={"crf": "17"})
        except UnknownCodecError:  # FFmpeg can be built without x264.
            return self.container.add_stream("mpeg4", rate=self._rate, options={"qmax": "4"})
