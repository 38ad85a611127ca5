import struct
import zlib

import pytest
from PIL import Image, ImageCms

from tests.engine.pictures.builders import (
    BLUE,
    GREY,
    INVISIBLE,
    LINEAR_GREY,
    RED,
    SWAPPED,
    WHITE,
    WIDE,
    close,
    cmyk_profile,
    colours,
    idat,
    opacity,
    png,
    reopened,
    row,
    save,
)

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_follows_its_profile(kind):
    options = {"icc_profile": cmyk_profile()} | ({"quality": 100} if kind == "JPEG" else {})
    [paper] = colours(reopened(save(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), kind, **options)))
    assert close(paper, WHITE)
    [cyan] = colours(reopened(save(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), kind, **options)))
    assert close(cyan, RED, 16)


def test_cmyk_with_the_profile_of_another_mode_converts_as_without():
    image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
    assert colours(reopened(save(image, "TIFF", icc_profile=SWAPPED))) == [RED]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_embedded_profile_is_followed(kind):
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    picture = reopened(save(Image.new("RGB", (8, 8), RED), kind, icc_profile=SWAPPED, **options))
    assert close(colours(picture)[0], BLUE, 12)


def test_a_wide_gamut_becomes_more_saturated_in_srgb():
    [(red, green, blue), white] = colours(reopened(save(row("RGB", (100, 200, 100), WHITE), "PNG", icc_profile=WIDE)))
    assert red < 90
    assert green >= 199
    assert blue < 100
    assert close(white, WHITE, 1)


def test_an_srgb_profile_changes_nothing():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    [colour] = colours(reopened(save(row("RGB", (200, 100, 50)), "PNG", icc_profile=srgb)))
    assert close(colour, (200, 100, 50), 1)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_is_followed(mode):
    image = Image.new("L", (2, 2), 55)
    data = save(image if mode == "L" else image.convert(mode), "PNG", icc_profile=LINEAR_GREY)
    if mode == "I;16":
        pixels = (b"\0" + struct.pack(">2H", 55 * 257, 55 * 257)) * 2
        data = png(2, 2, 16, 0, (b"iCCP", b"grey\0\0" + zlib.compress(LINEAR_GREY)), idat(pixels))
    assert close(colours(reopened(data))[0], GREY, 2)


def test_a_grey_profile_is_followed_beside_a_transparent_grey():
    picture = reopened(save(row("L", 55, 0), "PNG", icc_profile=LINEAR_GREY, transparency=0))
    assert close(colours(picture)[0], GREY, 2)
    assert opacity(picture) == [255, 0]


def test_a_palette_follows_the_profile():
    image = row("P", 0)
    image.putpalette(list(RED))
    assert close(colours(reopened(save(image, "PNG", icc_profile=SWAPPED)))[0], BLUE, 2)


def test_transparency_survives_the_profile():
    picture = reopened(save(row("RGBA", (*RED, 200), INVISIBLE), "PNG", icc_profile=SWAPPED))
    assert close(colours(picture)[0], BLUE, 2)
    assert colours(picture)[1] == WHITE
    assert opacity(picture) == [200, 0]


@pytest.mark.parametrize(
    "profile", [b"no profile", SWAPPED[:200], bytes(128), LINEAR_GREY, SWAPPED[:128] + b"\xff" * 400]
)
def test_a_profile_that_cannot_be_used_means_srgb(profile):
    assert colours(reopened(save(row("RGB", (200, 100, 50)), "PNG", icc_profile=profile))) == [(200, 100, 50)]


def test_a_tiff_profile_of_the_wrong_type_means_srgb():
    data = save(row("RGB", (200, 100, 50)), "TIFF", tiffinfo={34675: "text"})
    assert colours(reopened(data)) == [(200, 100, 50)]
