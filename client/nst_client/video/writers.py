"""Writers of finished frames: into a folder of PNGs, or into a video."""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

import av
import numpy as np
from av.audio import AudioStream

from nst_client.files import replace_file, temporary_name, write_atomically
from nst_client.media.h264 import Mp4Encoder
from nst_client.video.frames import FootageError
from nst_client.video.pixels import Pixels, decode

_SoundPacket: TypeAlias = "av.Packet[AudioStream]"

DEFAULT_RATE = Fraction(25)
"""The number of frames a second in a video that is made of pictures."""


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Raise an OSError for an error of FFmpeg in the body."""
    try:
        yield
    except av.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from error


class FrameWriter(Protocol):
    """A writer of finished frames. As a context manager, it keeps the frames that it got, whatever ends it."""

    def write(self, number: int, picture: bytes) -> Path | None:
        """Write the next frame.

        Args:
            number: the number of the frame in its footage.
            picture: the encoded picture.

        Returns:
            The file of this frame; None if all frames are in one file.

        Raises:
            FootageError: the frame cannot be decoded, or its size is not that of the frames before.
            OSError: the frame cannot be written.
        """

    def __enter__(self) -> Self:
        """Begin the folder or video."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Finish the folder or video."""


class FolderWriter:
    """Writes each frame into a file of its own, named by its number as FFmpeg expects it: 000001.png."""

    def __init__(self, folder: Path):
        self._folder = folder

    def path(self, number: int) -> Path:
        """Return the file of a frame."""
        return self._folder / f"{number:06d}.png"

    def first_missing(self, start: int) -> int:
        """Return the number of the first frame, from `start` on, that has no file."""
        while self.path(start).exists():
            start += 1
        return start

    def write(self, number: int, picture: bytes) -> Path:
        """Write the file of a frame (see `FrameWriter.write`)."""
        path = self.path(number)
        write_atomically(path, picture)
        return path

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def _folder_for_temporary(path: Path) -> Path:
    """Return the folder of a file, or another one if only the file itself may be written."""
    folder = Path(os.path.realpath(path)).parent
    return folder if os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


class VideoWriter:
    """Writes an MP4 with H.264, under a temporary name until it is finished."""

    def __init__(self, path: Path, rate: Fraction | None = None, sound: Path | None = None, start: int = 1):
        """Prepare the writer. The file begins with the first frame, whose size it takes.

        Args:
            path: the path of the file.
            rate: frames a second. Default: `DEFAULT_RATE`.
            sound: a file whose first sound track is copied as it is, if MP4 can hold it. Default: no sound.
            start: number of the frame at which the sound begins.
        """
        self._path = path
        self._temporary = temporary_name(_folder_for_temporary(path))
        self._rate = rate or DEFAULT_RATE
        self._sound = sound
        self._start = start
        self._resources = contextlib.ExitStack()
        self._encoder: Mp4Encoder | None = None
        self._packets: Iterator[tuple[Fraction, _SoundPacket]] = iter(())
        self._next_packet: tuple[Fraction, _SoundPacket] | None = None

    @_os_errors()
    def write(self, number: int, picture: bytes) -> None:
        """Encode a frame (see `FrameWriter.write`)."""
        del number
        pixels = decode(picture)
        if pixels is None:
            raise FootageError("the result cannot be decoded")
        # H.264 has one colour for two rows and two columns.
        pixels = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
        encoder = self._encoder or self._begin(pixels)
        height, width = pixels.shape[:2]
        if (width, height) != encoder.size:
            expected = "{}x{}".format(*encoder.size)
            raise FootageError(f"is {width}x{height} px, the video has {expected} px")
        encoder.add(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24"))
        self._copy_sound(encoder)

    def __enter__(self) -> Self:
        return self

    @_os_errors()
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._resources.close()
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        if self._encoder is not None:
            try:
                replace_file(self._temporary, self._path)
            except OSError as failure:
                reason = f"{failure.strerror}; the video is in {self._temporary}"
                raise OSError(failure.errno, reason) from failure

    def _begin(self, pixels: Pixels) -> Mp4Encoder:
        height, width = pixels.shape[:2]
        encoder = Mp4Encoder(self._temporary, width=width, height=height, rate=self._rate)
        self._resources.callback(encoder.close)
        if self._sound is not None:
            self._open_sound(self._sound, encoder)
        self._encoder = encoder
        return encoder

    def _open_sound(self, path: Path, encoder: Mp4Encoder) -> None:
        source = self._resources.enter_context(av.open(path))
        tracks = source.streams.audio
        if not tracks or tracks[0].codec_context.name not in encoder.container.supported_codecs:
            return
        track = encoder.container.add_stream_from_template(tracks[0])
        self._packets = self._from_start(source.demux(tracks[0]), track)
        self._next_packet = next(self._packets, None)

    def _from_start(
        self, packets: Iterable[_SoundPacket], track: AudioStream
    ) -> Iterator[tuple[Fraction, _SoundPacket]]:
        """Yield the packets from the first frame on, each with the seconds since that frame."""
        begin = (self._start - 1) / self._rate
        for packet in packets:
            if packet.pts is None or packet.dts is None:  # The last packet of a stream is empty.
                continue
            # Many tracks begin a little before 0, so that decoders can warm up.
            if begin > 0 and packet.pts * packet.time_base < begin:
                continue
            offset = round(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = track
            yield packet.pts * packet.time_base, packet

    def _copy_sound(self, encoder: Mp4Encoder) -> None:
        """Copy the sound up to the end of the last frame, so that sound and pictures are interleaved."""
        while self._next_packet is not None and self._next_packet[0] < encoder.count / self._rate:
            encoder.container.mux(self._next_packet[1])
            self._next_packet = next(self._packets, None)
