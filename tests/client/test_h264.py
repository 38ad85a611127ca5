import io
import subprocess
import sys
from fractions import Fraction

import pytest

av = pytest.importorskip("av")

from nst_client.media.h264 import Mp4Encoder  # noqa: E402

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200)]


def frame(color, width=64, height=48):
    return av.VideoFrame.from_bytes(bytes([*color, 255]) * (width * height), width, height)


@pytest.fixture(params=["path", "buffer"])
def file(request, tmp_path):
    return tmp_path / "film.mp4" if request.param == "path" else io.BytesIO()


def encode(file, *, rate=Fraction(30000, 1001)):
    encoder = Mp4Encoder(file, width=64, height=48, rate=rate)
    for color in COLOURS:
        encoder.add(frame(color), count=2)
    encoder.close()
    return io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file.open("rb")


def test_every_frame_is_shown_as_often_as_said_in_its_colour(file):
    with encode(file) as written, av.open(written) as opened:
        stream = opened.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.average_rate, stream.width, stream.height) == (Fraction(30000, 1001), 64, 48)
        shown = [image.to_ndarray(format="rgb24")[24, 32] for image in opened.decode(stream)]
    assert len(shown) == 2 * len(COLOURS)
    for index, pixel in enumerate(shown):
        assert all(abs(int(one) - two) <= 3 for one, two in zip(pixel, COLOURS[index // 2], strict=True))


def test_the_file_names_its_colours(file):
    with encode(file) as written, av.open(written) as opened:
        coding = opened.streams.video[0].codec_context
        (first, *_) = opened.decode(video=0)
        assert (int(first.colorspace), int(first.color_range)) == (1, 1)
        assert (int(coding.color_primaries), int(coding.color_trc)) == (1, 1)


def test_a_file_begins_with_its_index(tmp_path):
    data = encode(tmp_path / "film.mp4").read()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_a_file_without_frames_can_be_closed(file):
    Mp4Encoder(file, width=64, height=48, rate=Fraction(10)).close()


def test_the_encoder_needs_av_alone():
    code = "import sys, nst_client.media.h264; print(*({'PIL', 'matplotlib', 'cv2'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
