import struct

import pytest
from PIL import Image, ImageCms

from tests.engine.pictures.builders import (
    BLACK,
    GREEN,
    GREY,
    RED,
    WHITE,
    close,
    colours,
    grey_tiff,
    idat,
    opacity,
    png,
    refusal,
    reopened,
    row,
    save,
    tiff,
)

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def test_one_bit_becomes_black_and_white():
    assert colours(reopened(save(row("1", 0, 255), "PNG"))) == [BLACK, WHITE]


def test_grey_becomes_three_equal_channels():
    assert colours(reopened(save(row("L", 0, 100, 255), "PNG"))) == [BLACK, (100, 100, 100), WHITE]


def test_grey_with_alpha_keeps_both():
    picture = reopened(save(row("LA", (100, 255), (50, 128), (0, 0)), "PNG"))
    assert colours(picture) == [(100, 100, 100), (50, 50, 50), WHITE]
    assert opacity(picture) == [255, 128, 0]


def test_a_palette_is_looked_up():
    image = row("P", 0, 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert colours(reopened(save(image, "PNG"))) == [(10, 20, 30), (40, 50, 60)]


def test_a_palette_keeps_its_transparency():
    image = row("P", 0, 1, 2)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture = reopened(save(image, "PNG", transparency=bytes([255, 128, 0])))
    assert colours(picture) == [(10, 20, 30), (40, 50, 60), WHITE]
    assert opacity(picture) == [255, 128, 0]


def test_a_transparent_colour_of_a_png_is_transparent():
    picture = reopened(save(row("RGB", RED, GREEN), "PNG", transparency=GREEN))
    assert colours(picture) == [RED, WHITE]
    assert opacity(picture) == [255, 0]


def test_a_transparent_grey_of_a_png_is_transparent():
    picture = reopened(save(row("L", 100, 0), "PNG", transparency=0))
    assert colours(picture) == [(100, 100, 100), WHITE]
    assert opacity(picture) == [255, 0]


def test_a_transparent_grey_of_a_16_bit_png_is_transparent():
    pixels = struct.pack(">x3H", 257, 258, 65535)
    picture = reopened(png(3, 1, 16, 0, (b"tRNS", struct.pack(">H", 258)), idat(pixels)))
    assert colours(picture) == [(1, 1, 1), WHITE, WHITE]
    assert opacity(picture) == [255, 0, 255]


def test_alpha_that_is_opaque_everywhere_is_dropped():
    assert reopened(save(Image.new("RGBA", (3, 3), (9, 8, 7, 255)), "PNG")).alpha is None


@pytest.mark.parametrize("bits", [8, 16])
def test_truecolour_with_alpha_keeps_both(bits):
    values = (255, 0, 0, 255, 0, 0, 255, 0)
    pixels = b"\0" + b"".join(bytes([value]) * (bits // 8) for value in values)
    picture = reopened(png(2, 1, bits, 6, idat(pixels)))
    assert colours(picture) == [RED, WHITE]
    assert opacity(picture) == [255, 0]


def test_16_bit_truecolour_maps_linearly():
    assert colours(reopened(png(1, 1, 16, 2, idat(struct.pack(">x3H", 0, 257 * 100, 65535))))) == [(0, 100, 255)]


def test_a_16_bit_ramp_maps_linearly():
    ramp = range(0, 65536, 51)
    picture = reopened(png(len(ramp), 1, 16, 0, idat(struct.pack(f">x{len(ramp)}H", *ramp))))
    assert [red for red, _, _ in colours(picture)] == [round(value / 257) for value in ramp]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_16_bit_tiff_maps_linearly_in_either_byte_order(order):
    pixels = struct.pack(order + "3H", 0, 257 * 100, 65535)
    assert colours(reopened(grey_tiff(3, 16, pixels, order))) == [BLACK, (100, 100, 100), WHITE]


def test_a_16_bit_tiff_where_zero_is_white_is_not_inverted():
    pixels = struct.pack("<3H", 0, 257 * 100, 65535)
    assert colours(reopened(grey_tiff(3, 16, pixels, photometric=0))) == [WHITE, (155, 155, 155), BLACK]


def test_a_12_bit_tiff_maps_linearly():
    assert colours(reopened(grey_tiff(2, 12, b"\xff\xf0\x00"))) == [WHITE, BLACK]


def test_a_32_bit_tiff_within_16_bits_is_read_as_16_bits():
    assert colours(reopened(save(row("I", 0, 65535), "TIFF"))) == [BLACK, WHITE]


@pytest.mark.parametrize("value", [-1, 65536])
def test_a_32_bit_tiff_beyond_16_bits_is_refused(value):
    assert "16 bits per channel" in refusal(save(row("I", 0, value), "TIFF"))


def test_a_signed_tiff_below_zero_is_refused():
    assert "below zero" in refusal(grey_tiff(1, 16, struct.pack("<h", -5), sample_format=2))


def test_a_floating_point_tiff_is_refused_with_what_is_accepted():
    accepted = "integers of up to 16 bits per channel are accepted"
    assert refusal(save(row("F", 0.5), "TIFF")) == f"has floating-point pixels; {accepted}"


@pytest.mark.parametrize("extra_samples", [1, 2])
def test_a_tiff_with_alpha_is_read_premultiplied_or_not(extra_samples):
    layout = {256: (3, 1, 2), 257: (3, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 2)}
    pixels = bytes([64, 128, 0, 0])
    strip = {273: (4, 1, pixels), 278: (3, 1, 1), 279: (4, 1, 4), 338: (3, 1, extra_samples)}
    picture = reopened(tiff(layout | strip))
    assert opacity(picture) == [128, 0]
    assert close(colours(picture)[0], GREY if extra_samples == 1 else (64, 64, 64), 1)


def test_a_ycbcr_tiff_becomes_rgb():
    [colour] = colours(reopened(save(row("RGB", (200, 100, 50)).convert("YCbCr"), "TIFF")))
    assert close(colour, (200, 100, 50))


def test_a_lab_tiff_becomes_rgb():
    lab = ImageCms.profileToProfile(
        row("RGB", WHITE, BLACK, (200, 100, 50)),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    white, black, orange = colours(reopened(save(lab, "TIFF")))
    assert close(white, WHITE)
    assert close(black, BLACK)
    assert close(orange, (200, 100, 50), 6)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_ink_is_white_and_with_all_ink_black(kind):
    assert colours(reopened(save(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), kind))) == [WHITE]
    assert colours(reopened(save(Image.new("CMYK", (1, 1), (255, 255, 255, 255)), kind))) == [BLACK]
