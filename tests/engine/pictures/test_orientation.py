import struct

import pytest
from nst_service.engine.sizes import Size
from PIL import Image

from tests.engine.pictures.builders import BLUE, INVISIBLE, RED, WHITE, close, opacity, orientation, reopened, row, save

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_orientation_comes_out_upright(kind, value):
    upright = Image.new("RGB", (32, 16), WHITE)
    upright.paste(RED, (0, 0, 16, 8))
    upright.paste(BLUE, (16, 0, 32, 8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[value]) if value in undo else upright
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    picture = reopened(save(stored, kind, exif=orientation(value), **options))
    assert picture.size == Size(32, 16)
    corners = [(4, 4), (28, 4), (4, 12), (28, 12)]
    expected = [RED, BLUE, WHITE, WHITE]
    for corner, colour in zip(corners, expected, strict=True):
        assert close(picture.rgb.getpixel(corner), colour, 12)


def test_transparency_turns_with_the_picture():
    image = row("RGBA", (*RED, 255), INVISIBLE)
    picture = reopened(save(image, "PNG", exif=orientation(6)))
    assert picture.size == Size(1, 2)
    assert opacity(picture) == [255, 0]


def test_a_16_bit_picture_turns():
    data = save(Image.frombytes("I;16", (2, 1), struct.pack("<2H", 0, 65535)), "PNG", exif=orientation(6))
    assert reopened(data).size == Size(1, 2)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no directory",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(256)),
        orientation(0),
        orientation(9),
        orientation("upside down", 2),
        orientation(b"\6\6\6\6\6", 7),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_data_are_ignored(kind, exif):
    assert reopened(save(Image.new("RGB", (3, 2)), kind, exif=exif)).size == Size(3, 2)
