import random
import struct
import zlib

import pytest
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode
from nst_service.engine.sizes import Size
from PIL import Image

from tests.engine.pictures.builders import (
    SWAPPED,
    encoded_noise,
    grey_tiff,
    idat,
    orientation,
    png,
    refusal,
    save,
    tiff,
)

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def test_nothing_is_said_to_be_empty():
    assert refusal(b"") == "is empty; accepted formats are PNG, JPEG, WebP and TIFF"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"a text about a picture", ""),
        (b"II. A chapter about a picture", ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"\xff\xd8\xff", ""),
        (save(Image.new("RGB", (2, 2)), "GIF"), ": it is a GIF"),
        (save(Image.new("RGB", (2, 2)), "BMP"), ": it is a BMP"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ""),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ": it is an SVG"),
    ],
)
def test_what_is_no_accepted_picture_is_refused_with_what_is(data, name):
    assert refusal(data) == f"cannot be read as a picture{name}; accepted formats are PNG, JPEG, WebP and TIFF"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_half_a_picture_is_refused(kind):
    data = encoded_noise(kind)
    assert refusal(data[: len(data) // 2]) in ("is damaged or truncated", refusal(b"no picture"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_more_pixels_than_allowed_are_refused_with_the_limit(kind):
    data = save(Image.new("RGB", (30, 20)), kind)
    assert refusal(data, 599) == "has 30x20 px, 600 in all; this server accepts at most 599"
    assert decode(data, max_pixels=600).size == Size(30, 20)


def test_200_megapixels_are_refused_without_decoding_one(monkeypatch):
    data = png(20_000, 10_000, 8, 2, idat(b"no pixels at all"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decodes"))
    assert refusal(data).endswith("this server accepts at most 1000000")


def test_pillows_own_limit_is_a_refusal(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    data = save(Image.new("RGB", (30, 20)), "PNG")
    assert refusal(data) == "has far too many pixels; this server accepts at most 1000000"


@pytest.mark.parametrize("size", [Size(0, 5), Size(5, 0), Size(0, 0)])
def test_a_picture_without_pixels_is_refused(size):
    assert refusal(png(*size, 8, 2, idat(b""))).startswith("cannot be read as a picture")
    assert refusal(grey_tiff(size.width, 8, b"", height=size.height)).startswith("cannot be read as a picture")


def test_a_webp_canvas_that_is_too_large_is_refused():
    canvas = b"VP8X" + struct.pack("<IB3x", 10, 2) + struct.pack("<I", 11_999)[:3] * 2
    still = save(Image.new("RGB", (4, 4)), "WEBP")[12:]
    frame = bytes(6) + b"\3\0\0\3\0\0\1\0\0\0" + still
    body = b"WEBP" + canvas + b"ANIM" + struct.pack("<I6x", 6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    assert "12000x12000 px" in refusal(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_a_text_chunk_bomb_does_no_harm():
    bomb = (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))
    assert refusal(png(1, 1, 8, 0, bomb, idat(b"\0\0"))) == "is damaged or truncated"


def test_a_profile_bomb_does_no_harm():
    bomb = (b"iCCP", b"a\0\0" + zlib.compress(bytes(2**26)))
    assert refusal(png(1, 1, 8, 0, bomb, idat(b"\0\0"))) == "is damaged or truncated"


def test_a_png_of_many_profiles_is_refused():
    profile = (b"iCCP", b"a\0\0" + zlib.compress(bytes(1000)))
    assert "too many parts" in refusal(png(1, 1, 8, 0, *101 * [profile], idat(b"\0\0")))


def test_a_png_of_countless_chunks_is_refused():
    assert "too many parts" in refusal(png(1, 1, 8, 0, *300_000 * [(b"prVt", b"")], idat(b"\0\0")))


def test_a_jpeg_of_countless_scans_is_refused():
    data = save(Image.linear_gradient("L"), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    assert "too many parts" in refusal(data[:-2] + 100 * last_scan + data[-2:])


def test_a_jpeg_of_many_exif_segments_is_refused():
    data = save(Image.new("L", (8, 8)), "JPEG")
    assert "too many parts" in refusal(data[:2] + 101 * b"\xff\xe1\0\x0aExif\0\0ab" + data[2:])


def test_a_tiff_of_countless_strips_is_refused():
    data = grey_tiff(1, 8, b"\0")
    strips = struct.pack("<HHI", 273, 4, 1)
    assert "too many strips or tiles" in refusal(data.replace(strips, struct.pack("<HHI", 273, 4, 100_001)))


def test_a_tiff_whose_strips_overlap_is_refused():
    pixels = bytes(200)
    entries = {256: (3, 1, 10), 257: (3, 1, 20), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    offsets = 50 * struct.pack("<I", 8)
    data = tiff({**entries, 273: (4, 50, offsets), 278: (3, 1, 19), 279: (4, 50, offsets)}) + pixels
    assert refusal(data) == "has strips or tiles that overlap"


def test_a_small_tiff_in_a_huge_tile_is_refused():
    entries = {256: (3, 1, 16), 257: (3, 1, 16), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}
    body = zlib.compress(bytes(1000))
    tiles = {322: (4, 1, 40_000), 323: (4, 1, 40_000), 324: (4, 1, body), 325: (4, 1, len(body))}
    assert "has tiles of too many pixels" in refusal(tiff(entries | tiles))


def test_running_out_of_memory_is_a_refusal(monkeypatch):
    def load(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
    assert "memory" in refusal(save(Image.new("RGB", (2, 2)), "PNG"))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
def test_a_mutated_tiff_is_a_picture_or_a_refusal(compression):
    assert_survives(encoded_noise("TIFF", compression=compression), rounds=300)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_mutated_picture_is_a_picture_or_a_refusal(kind):
    assert_survives(encoded_noise(kind, exif=orientation(6), icc_profile=SWAPPED), rounds=300)


def assert_survives(sample: bytes, rounds: int) -> None:
    chance = random.Random(0)
    for _ in range(rounds):
        data = bytearray(sample)
        for _ in range(chance.choice((0, 1, 3, 10))):
            data[int(len(data) * chance.random() ** 3)] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        try:
            picture = decode(bytes(data), max_pixels=100_000)
        except PictureError:
            continue
        assert picture.rgb.mode == "RGB"
        assert picture.width * picture.height <= 100_000
