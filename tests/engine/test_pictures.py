import io
import struct
import zlib

import pytest
import torch
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures import Picture, PictureFormat, decode, encode, fit, preview
from PIL import Image

LIMIT = 1_000_000


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


@pytest.mark.parametrize("data", [b"", b"this is text", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_picture_is_refused(data: bytes):
    with pytest.raises(PictureError):
        decode(data, max_pixels=LIMIT)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_truncated_picture_is_refused(kind: str):
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = saved(Image.open(io.BytesIO(encode(pixels, format=PictureFormat.PNG, quality=95))), kind)
    with pytest.raises(PictureError):
        decode(whole[: len(whole) // 2], max_pixels=LIMIT)


@pytest.mark.parametrize("size", [(20_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]):
    with pytest.raises(PictureError, match=r"pixels|px"):
        decode(bomb(*size), max_pixels=LIMIT)


def test_a_phone_photograph_comes_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(saved(Image.new("RGB", (30, 20)), "JPEG", exif=exif), max_pixels=LIMIT).size == (20, 30)


def test_sixteen_bits_of_grey_are_scaled():
    image = Image.new("I;16", (2, 1))
    image.putpixel((1, 0), 65535)
    rgb = decode(saved(image), max_pixels=LIMIT).rgb
    assert [rgb.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_white_stays_white_in_every_mode(mode: str):
    image = Image.new("RGBA", (4, 4), "white").convert(mode)
    assert decode(saved(image), max_pixels=LIMIT).rgb.getpixel((1, 1)) == (255, 255, 255)


def test_white_stays_white_in_cmyk():
    data = saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), "JPEG")
    assert min(decode(data, max_pixels=LIMIT).rgb.getpixel((1, 1))) >= 254


def test_transparency_is_put_back_or_flattened_on_white():
    picture = decode(saved(Image.new("RGBA", (8, 8), (0, 0, 0, 0))), max_pixels=LIMIT).resized((4, 4))
    pixels = picture.to_tensor()
    png = Image.open(io.BytesIO(encode(pixels, format=PictureFormat.PNG, quality=95, alpha=picture.alpha)))
    assert png.mode == "RGBA"
    assert png.getpixel((1, 1))[3] == 0
    jpeg = Image.open(io.BytesIO(encode(pixels * 0, format=PictureFormat.JPEG, quality=95, alpha=picture.alpha)))
    assert jpeg.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", list(PictureFormat))
def test_the_same_pixels_give_the_same_bytes(kind: PictureFormat):
    pixels = torch.rand(1, 3, 17, 23, generator=torch.Generator().manual_seed(0))
    first = encode(pixels, format=kind, quality=90)
    assert first == encode(pixels, format=kind, quality=90)
    assert decode(first, max_pixels=LIMIT).size == (23, 17)


def test_fit_keeps_the_shape_and_never_vanishes():
    assert fit((1000, 500), 512) == (512, 256)
    assert fit((1000, 1), 10) == (10, 1)
    assert fit((30, 20), 0) == (30, 20)


def test_a_preview_is_never_enlarged():
    small = preview(Picture.blank((40, 20)).to_tensor(), longest_edge=256)
    assert (small.width, small.height) == (40, 20)
    assert preview(Picture.blank((400, 200)).to_tensor(), longest_edge=100).height == 50
