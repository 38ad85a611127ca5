import io
import random
import struct
import zlib

import pytest
import torch
from nst_service.engine.choices import OutputFormat
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.encode import EncodedPreview, encode, preview
from nst_service.engine.pictures.formats import INPUT_MEDIA_TYPES, WRITTEN_FORMATS
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size, fit
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")

WHITE, BLACK, RED, GREEN, BLUE = (255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)
GREY, INVISIBLE = (128, 128, 128), (0, 0, 0, 0)
MAX_PIXELS = 1_000_000


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def row(mode: str, *pixels: object) -> Image.Image:
    """A picture of one row."""
    image = Image.new(mode, (len(pixels), 1))
    image.putdata(pixels)
    return image


def colours(picture: Picture) -> list[tuple[int, ...]]:
    return list(picture.rgb.get_flattened_data())


def opacity(picture: Picture) -> list[int]:
    assert picture.alpha is not None
    return list(picture.alpha.get_flattened_data())


def reopened(data: bytes) -> Picture:
    return decode(data, max_pixels=MAX_PIXELS)


def refusal(data: bytes, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(PictureError) as refused:
        decode(data, max_pixels=max_pixels)
    return str(refused.value)


def close(actual: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(actual, expected, strict=True))


def noise(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def waves(height: int, width: int) -> torch.Tensor:
    """A smooth picture."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    return torch.stack([x.sin(), y.cos() / 2 + 0.5, (x * y / 9)])[None].clamp(0, 1)


def png(width: int, height: int, depth: int, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (header, *chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def idat(rows: bytes) -> tuple[bytes, bytes]:
    return b"IDAT", zlib.compress(rows)


def tiff(entries: dict[int, tuple[int, int, int | bytes]], order: str = "<") -> bytes:
    """A TIFF of these tags: type, count, and the value or the bytes that it stands for."""
    offset = 8 + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(order + "H", len(entries)), b""
    for tag, (kind, count, value) in sorted(entries.items()):
        directory += struct.pack(order + "HHI", tag, kind, count)
        if isinstance(value, bytes):
            directory += struct.pack(order + "I", offset + len(values))
            values += value
        else:
            directory += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8) + directory + struct.pack(order + "I", 0) + values


def grey_tiff(width: int, bits: int, pixels: bytes, order: str = "<", **changes: int) -> bytes:
    """An uncompressed grey TIFF of one row."""
    return tiff(
        {
            256: (3, 1, width),
            257: (3, 1, changes.get("height", 1)),
            258: (3, 1, bits),
            259: (3, 1, 1),
            262: (3, 1, changes.get("photometric", 1)),
            273: (4, 1, pixels),
            277: (3, 1, 1),
            278: (3, 1, 1),
            279: (4, 1, len(pixels)),
            339: (3, 1, changes.get("sample_format", 1)),
        },
        order,
    )


def orientation(value: object, kind: int | None = None) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    if kind is not None:
        directory = ImageFileDirectory_v2()
        directory.tagtype[0x0112] = kind
        directory[0x0112] = value
        return b"Exif\0\0II*\0\x08\0\0\0" + directory.tobytes(8)
    return exif.tobytes()


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def icc_profile(space: bytes, connection: bytes = b"XYZ ", **tags: bytes) -> bytes:
    """A display profile, version 2.1, with these tags."""
    table, body, offset = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name.encode(), offset + len(body), len(data))
        body += data.ljust(-4 * (-len(data) // 4), b"\0")
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"", 0x02100000, b"mntr", space, connection, bytes(12), b"acsp")
    header = header.ljust(68, b"\0") + xyz(0.9642, 1, 0.8249)[8:]
    return header.ljust(128, b"\0") + table + body


def gamma(exponent: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(exponent * 256))


def rgb_profile(*primaries: tuple[float, float, float], exponent: float = 2.2) -> bytes:
    curve = gamma(exponent)
    red, green, blue = (xyz(*primary) for primary in primaries)
    white = xyz(0.9642, 1, 0.8249)
    return icc_profile(b"RGB ", wtpt=white, rXYZ=red, gXYZ=green, bXYZ=blue, rTRC=curve, gTRC=curve, bTRC=curve)


def cmyk_profile() -> bytes:
    """No ink is white, cyan ink alone is a red, and everything else is black."""
    white, red, black = (255, 128, 128), (136, 208, 195), (0, 128, 128)  # L*, a*, b* with 8 bits
    corners = [white, *7 * [black], red, *7 * [black]]  # Black ink varies fastest, cyan slowest.
    identity = struct.pack(">9i", *(65536 * (index % 4 == 0) for index in range(9)))
    table = b"mft1" + struct.pack(">4x4B", 4, 3, 2, 0) + identity + 4 * bytes(range(256))
    table += bytes(level for corner in corners for level in corner) + 3 * bytes(range(256))
    return icc_profile(b"CMYK", b"Lab ", wtpt=xyz(0.9642, 1, 0.8249), A2B0=table)


SRGB_PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
SWAPPED = rgb_profile(*reversed(SRGB_PRIMARIES))
"""What it calls red is blue."""
ADOBE_PRIMARIES = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
WIDE = rgb_profile(*ADOBE_PRIMARIES)
LINEAR_GREY = icc_profile(b"GRAY", wtpt=xyz(0.9642, 1, 0.8249), kTRC=gamma(1))


class TestDecoding:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_every_accepted_format_keeps_its_colours(self, kind):
        picture = reopened(save(Image.new("RGB", (7, 5), (200, 100, 50)), kind))
        assert picture.size == (picture.width, picture.height) == (7, 5)
        assert picture.alpha is None
        assert all(close(colour, (200, 100, 50), 6) for colour in colours(picture))

    def test_the_media_types_name_the_accepted_formats(self):
        assert INPUT_MEDIA_TYPES == ("image/png", "image/jpeg", "image/webp", "image/tiff")

    @pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (13, 17)])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_odd_sizes_are_kept(self, kind, size):
        assert reopened(save(Image.new("RGB", size), kind)).size == size

    def test_one_bit_becomes_black_and_white(self):
        assert colours(reopened(save(row("1", 0, 255), "PNG"))) == [BLACK, WHITE]

    def test_grey_becomes_three_equal_channels(self):
        assert colours(reopened(save(row("L", 0, 100, 255), "PNG"))) == [BLACK, (100, 100, 100), WHITE]

    def test_grey_with_alpha_keeps_both(self):
        picture = reopened(save(row("LA", (100, 255), (50, 128), (0, 0)), "PNG"))
        assert colours(picture) == [(100, 100, 100), (50, 50, 50), WHITE]
        assert opacity(picture) == [255, 128, 0]

    def test_a_palette_is_looked_up(self):
        image = row("P", 0, 1)
        image.putpalette([10, 20, 30, 40, 50, 60])
        assert colours(reopened(save(image, "PNG"))) == [(10, 20, 30), (40, 50, 60)]

    def test_a_palette_keeps_its_transparency(self):
        image = row("P", 0, 1, 2)
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        picture = reopened(save(image, "PNG", transparency=bytes([255, 128, 0])))
        assert colours(picture) == [(10, 20, 30), (40, 50, 60), WHITE]
        assert opacity(picture) == [255, 128, 0]

    def test_a_transparent_colour_of_a_png_is_transparent(self):
        picture = reopened(save(row("RGB", RED, GREEN), "PNG", transparency=GREEN))
        assert colours(picture) == [RED, WHITE]
        assert opacity(picture) == [255, 0]

    def test_a_transparent_grey_of_a_png_is_transparent(self):
        picture = reopened(save(row("L", 100, 0), "PNG", transparency=0))
        assert colours(picture) == [(100, 100, 100), WHITE]
        assert opacity(picture) == [255, 0]

    def test_a_transparent_grey_of_a_16_bit_png_is_transparent(self):
        pixels = struct.pack(">x3H", 257, 258, 65535)
        picture = reopened(png(3, 1, 16, 0, (b"tRNS", struct.pack(">H", 258)), idat(pixels)))
        assert colours(picture) == [(1, 1, 1), WHITE, WHITE]
        assert opacity(picture) == [255, 0, 255]

    def test_alpha_that_is_opaque_everywhere_is_dropped(self):
        assert reopened(save(Image.new("RGBA", (3, 3), (9, 8, 7, 255)), "PNG")).alpha is None

    @pytest.mark.parametrize("bits", [8, 16])
    def test_truecolour_with_alpha_keeps_both(self, bits):
        values = (255, 0, 0, 255, 0, 0, 255, 0)
        pixels = b"\0" + b"".join(bytes([value]) * (bits // 8) for value in values)
        picture = reopened(png(2, 1, bits, 6, idat(pixels)))
        assert colours(picture) == [RED, WHITE]
        assert opacity(picture) == [255, 0]

    def test_16_bit_truecolour_maps_linearly(self):
        assert colours(reopened(png(1, 1, 16, 2, idat(struct.pack(">x3H", 0, 257 * 100, 65535))))) == [(0, 100, 255)]

    def test_a_16_bit_ramp_maps_linearly(self):
        ramp = range(0, 65536, 51)
        picture = reopened(png(len(ramp), 1, 16, 0, idat(struct.pack(f">x{len(ramp)}H", *ramp))))
        assert [red for red, _, _ in colours(picture)] == [round(value / 257) for value in ramp]

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_16_bit_tiff_maps_linearly_in_either_byte_order(self, order):
        pixels = struct.pack(order + "3H", 0, 257 * 100, 65535)
        assert colours(reopened(grey_tiff(3, 16, pixels, order))) == [BLACK, (100, 100, 100), WHITE]

    def test_a_16_bit_tiff_where_zero_is_white_is_not_inverted(self):
        pixels = struct.pack("<3H", 0, 257 * 100, 65535)
        assert colours(reopened(grey_tiff(3, 16, pixels, photometric=0))) == [WHITE, (155, 155, 155), BLACK]

    def test_a_12_bit_tiff_maps_linearly(self):
        assert colours(reopened(grey_tiff(2, 12, b"\xff\xf0\x00"))) == [WHITE, BLACK]

    def test_a_32_bit_tiff_within_16_bits_is_read_as_16_bits(self):
        assert colours(reopened(save(row("I", 0, 65535), "TIFF"))) == [BLACK, WHITE]

    @pytest.mark.parametrize("value", [-1, 65536])
    def test_a_32_bit_tiff_beyond_16_bits_is_refused(self, value):
        assert "16 bits per channel" in refusal(save(row("I", 0, value), "TIFF"))

    def test_a_signed_tiff_below_zero_is_refused(self):
        assert "below zero" in refusal(grey_tiff(1, 16, struct.pack("<h", -5), sample_format=2))

    def test_a_floating_point_tiff_is_refused_with_what_is_accepted(self):
        assert refusal(save(row("F", 0.5), "TIFF")).startswith("has floating-point pixels, accepted are")

    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
    def test_compressed_tiffs_are_read(self, compression):
        assert colours(reopened(save(row("RGB", RED, GREEN), "TIFF", compression=compression))) == [RED, GREEN]

    def test_a_bigtiff_is_read(self):
        assert colours(reopened(save(row("RGB", RED, GREEN), "TIFF", big_tiff=True))) == [RED, GREEN]

    @pytest.mark.parametrize("extra_samples", [1, 2])
    def test_a_tiff_with_alpha_is_read_premultiplied_or_not(self, extra_samples):
        layout = {256: (3, 1, 2), 257: (3, 1, 1), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 2)}
        pixels = bytes([64, 128, 0, 0])
        strip = {273: (4, 1, pixels), 278: (3, 1, 1), 279: (4, 1, 4), 338: (3, 1, extra_samples)}
        picture = reopened(tiff(layout | strip))
        assert opacity(picture) == [128, 0]
        assert close(colours(picture)[0], GREY if extra_samples == 1 else (64, 64, 64), 1)

    def test_a_ycbcr_tiff_becomes_rgb(self):
        [colour] = colours(reopened(save(row("RGB", (200, 100, 50)).convert("YCbCr"), "TIFF")))
        assert close(colour, (200, 100, 50))

    def test_a_lab_tiff_becomes_rgb(self):
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
    def test_cmyk_without_ink_is_white_and_with_all_ink_black(self, kind):
        assert colours(reopened(save(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), kind))) == [WHITE]
        assert colours(reopened(save(Image.new("CMYK", (1, 1), (255, 255, 255, 255)), kind))) == [BLACK]

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    def test_cmyk_follows_its_profile(self, kind):
        options = {"icc_profile": cmyk_profile()} | ({"quality": 100} if kind == "JPEG" else {})
        [paper] = colours(reopened(save(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), kind, **options)))
        assert close(paper, WHITE)
        [cyan] = colours(reopened(save(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), kind, **options)))
        assert close(cyan, RED, 16)

    def test_cmyk_with_the_profile_of_another_mode_converts_as_without(self):
        image = Image.new("CMYK", (1, 1), (0, 255, 255, 0))
        assert colours(reopened(save(image, "TIFF", icc_profile=SWAPPED))) == [RED]

    def test_only_the_first_frame_counts(self):
        first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
        for kind in ("PNG", "WEBP", "TIFF", "MPO"):
            picture = reopened(save(first, kind, save_all=True, append_images=[second]))
            assert close(colours(picture)[0], RED, 8), kind
            assert picture.size == (4, 4)

    def test_a_progressive_jpeg_is_read(self):
        image = Image.linear_gradient("L")
        assert reopened(save(image, "JPEG", progressive=True)).size == image.size


class TestOrientation:
    @pytest.mark.parametrize("value", range(1, 9))
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_every_orientation_comes_out_upright(self, kind, value):
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
        assert picture.size == (32, 16)
        corners = [(4, 4), (28, 4), (4, 12), (28, 12)]
        expected = [RED, BLUE, WHITE, WHITE]
        for corner, colour in zip(corners, expected, strict=True):
            assert close(picture.rgb.getpixel(corner), colour, 12)

    def test_transparency_turns_with_the_picture(self):
        image = row("RGBA", (*RED, 255), INVISIBLE)
        picture = reopened(save(image, "PNG", exif=orientation(6)))
        assert picture.size == (1, 2)
        assert opacity(picture) == [255, 0]

    def test_a_16_bit_picture_turns(self):
        data = save(Image.frombytes("I;16", (2, 1), struct.pack("<2H", 0, 65535)), "PNG", exif=orientation(6))
        assert reopened(data).size == (1, 2)

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
    def test_damaged_exif_data_are_ignored(self, kind, exif):
        assert reopened(save(Image.new("RGB", (3, 2)), kind, exif=exif)).size == (3, 2)


class TestColourManagement:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_an_embedded_profile_is_followed(self, kind):
        options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
        picture = reopened(save(Image.new("RGB", (8, 8), RED), kind, icc_profile=SWAPPED, **options))
        assert close(colours(picture)[0], BLUE, 12)

    def test_a_wide_gamut_becomes_more_saturated_in_srgb(self):
        [(red, green, blue), white] = colours(
            reopened(save(row("RGB", (100, 200, 100), WHITE), "PNG", icc_profile=WIDE))
        )
        assert red < 90
        assert green >= 199
        assert blue < 100
        assert close(white, WHITE, 1)

    def test_an_srgb_profile_changes_nothing(self):
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        [colour] = colours(reopened(save(row("RGB", (200, 100, 50)), "PNG", icc_profile=srgb)))
        assert close(colour, (200, 100, 50), 1)

    @pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
    def test_a_grey_profile_is_followed(self, mode):
        image = Image.new("L", (2, 2), 55)
        data = save(image if mode == "L" else image.convert(mode), "PNG", icc_profile=LINEAR_GREY)
        if mode == "I;16":
            pixels = (b"\0" + struct.pack(">2H", 55 * 257, 55 * 257)) * 2
            data = png(2, 2, 16, 0, (b"iCCP", b"grey\0\0" + zlib.compress(LINEAR_GREY)), idat(pixels))
        assert close(colours(reopened(data))[0], GREY, 2)

    def test_a_grey_profile_is_followed_beside_a_transparent_grey(self):
        picture = reopened(save(row("L", 55, 0), "PNG", icc_profile=LINEAR_GREY, transparency=0))
        assert close(colours(picture)[0], GREY, 2)
        assert opacity(picture) == [255, 0]

    def test_a_palette_follows_the_profile(self):
        image = row("P", 0)
        image.putpalette(list(RED))
        assert close(colours(reopened(save(image, "PNG", icc_profile=SWAPPED)))[0], BLUE, 2)

    def test_transparency_survives_the_profile(self):
        picture = reopened(save(row("RGBA", (*RED, 200), INVISIBLE), "PNG", icc_profile=SWAPPED))
        assert close(colours(picture)[0], BLUE, 2)
        assert colours(picture)[1] == WHITE
        assert opacity(picture) == [200, 0]

    @pytest.mark.parametrize(
        "profile", [b"no profile", SWAPPED[:200], bytes(128), LINEAR_GREY, SWAPPED[:128] + b"\xff" * 400]
    )
    def test_a_profile_that_cannot_be_used_means_srgb(self, profile):
        assert colours(reopened(save(row("RGB", (200, 100, 50)), "PNG", icc_profile=profile))) == [(200, 100, 50)]

    def test_a_tiff_profile_of_the_wrong_type_means_srgb(self):
        data = save(row("RGB", (200, 100, 50)), "TIFF", tiffinfo={34675: "text"})
        assert colours(reopened(data)) == [(200, 100, 50)]


class TestRefusals:
    def test_nothing_is_said_to_be_empty(self):
        assert refusal(b"") == "is empty, accepted are PNG, JPEG, WebP and TIFF"

    @pytest.mark.parametrize(
        "data",
        [
            b"a text about a picture",
            b"II. A chapter about a picture",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            save(Image.new("RGB", (2, 2)), "GIF"),
            save(Image.new("RGB", (2, 2)), "BMP"),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        ],
    )
    def test_what_is_no_accepted_picture_is_refused_with_what_is(self, data):
        assert refusal(data) == "is no picture that can be read, accepted are PNG, JPEG, WebP and TIFF"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_half_a_picture_is_refused(self, kind):
        data = encoded_noise(kind)
        assert refusal(data[: len(data) // 2]) in ("is damaged or truncated", refusal(b"no picture"))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
    def test_more_pixels_than_allowed_are_refused_with_the_limit(self, kind):
        data = save(Image.new("RGB", (30, 20)), kind)
        assert refusal(data, 599) == "has 30x20 px, 600 in all, this server accepts at most 599"
        assert decode(data, max_pixels=600).size == (30, 20)

    def test_200_megapixels_are_refused_without_decoding_one(self, monkeypatch):
        data = png(20_000, 10_000, 8, 2, idat(b"no pixels at all"))
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decodes"))
        assert refusal(data).endswith("this server accepts at most 1000000")

    def test_pillows_own_limit_is_a_refusal(self, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
        data = save(Image.new("RGB", (30, 20)), "PNG")
        assert refusal(data) == "has far too many pixels, this server accepts at most 1000000"

    @pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
    def test_a_picture_without_pixels_is_refused(self, size):
        assert refusal(png(*size, 8, 2, idat(b""))).startswith("is no picture that can be read")
        assert refusal(grey_tiff(size[0], 8, b"", height=size[1])).startswith("is no picture that can be read")

    def test_a_webp_canvas_that_is_too_large_is_refused(self):
        canvas = b"VP8X" + struct.pack("<IB3x", 10, 2) + struct.pack("<I", 11_999)[:3] * 2
        still = save(Image.new("RGB", (4, 4)), "WEBP")[12:]
        frame = bytes(6) + b"\3\0\0\3\0\0\1\0\0\0" + still
        body = b"WEBP" + canvas + b"ANIM" + struct.pack("<I6x", 6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
        assert "12000x12000 px" in refusal(b"RIFF" + struct.pack("<I", len(body)) + body)

    def test_a_text_chunk_bomb_does_no_harm(self):
        bomb = (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))
        assert refusal(png(1, 1, 8, 0, bomb, idat(b"\0\0"))) == "is damaged or truncated"

    def test_a_profile_bomb_does_no_harm(self):
        bomb = (b"iCCP", b"a\0\0" + zlib.compress(bytes(2**26)))
        assert refusal(png(1, 1, 8, 0, bomb, idat(b"\0\0"))) == "is damaged or truncated"

    def test_a_png_of_many_profiles_is_refused(self):
        profile = (b"iCCP", b"a\0\0" + zlib.compress(bytes(1000)))
        assert "too many parts" in refusal(png(1, 1, 8, 0, *101 * [profile], idat(b"\0\0")))

    def test_a_png_of_countless_chunks_is_refused(self):
        assert "too many parts" in refusal(png(1, 1, 8, 0, *300_000 * [(b"prVt", b"")], idat(b"\0\0")))

    def test_a_jpeg_of_countless_scans_is_refused(self):
        data = save(Image.linear_gradient("L"), "JPEG", progressive=True)
        last_scan = data[data.rindex(b"\xff\xda") : -2]
        assert "too many parts" in refusal(data[:-2] + 100 * last_scan + data[-2:])

    def test_a_jpeg_of_many_exif_segments_is_refused(self):
        data = save(Image.new("L", (8, 8)), "JPEG")
        assert "too many parts" in refusal(data[:2] + 101 * b"\xff\xe1\0\x0aExif\0\0ab" + data[2:])

    def test_a_tiff_of_countless_strips_is_refused(self):
        data = grey_tiff(1, 8, b"\0")
        strips = struct.pack("<HHI", 273, 4, 1)
        assert "too many strips or tiles" in refusal(data.replace(strips, struct.pack("<HHI", 273, 4, 100_001)))

    def test_a_tiff_whose_strips_overlap_is_refused(self):
        pixels = bytes(200)
        entries = {256: (3, 1, 10), 257: (3, 1, 20), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
        offsets = 50 * struct.pack("<I", 8)
        data = tiff({**entries, 273: (4, 50, offsets), 278: (3, 1, 19), 279: (4, 50, offsets)}) + pixels
        assert refusal(data) == "has strips or tiles that overlap"

    def test_a_small_tiff_in_a_huge_tile_is_refused(self):
        entries = {256: (3, 1, 16), 257: (3, 1, 16), 258: (3, 1, 8), 259: (3, 1, 8), 262: (3, 1, 1), 277: (3, 1, 1)}
        body = zlib.compress(bytes(1000))
        tiles = {322: (4, 1, 40_000), 323: (4, 1, 40_000), 324: (4, 1, body), 325: (4, 1, len(body))}
        assert "has tiles of too many pixels" in refusal(tiff(entries | tiles))

    def test_running_out_of_memory_is_a_refusal(self, monkeypatch):
        def load(_: object) -> None:
            raise MemoryError

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", load)
        assert "memory" in refusal(save(Image.new("RGB", (2, 2)), "PNG"))

    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
    def test_a_mutated_tiff_is_a_picture_or_a_refusal(self, compression):
        assert_survives(encoded_noise("TIFF", compression=compression), rounds=300)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    def test_a_mutated_picture_is_a_picture_or_a_refusal(self, kind):
        assert_survives(encoded_noise(kind, exif=orientation(6), icc_profile=SWAPPED), rounds=300)


def encoded_noise(kind: str, **options: object) -> bytes:
    pixels = (noise(24, 32)[0] * 255).byte().permute(1, 2, 0).contiguous()
    return save(Image.frombytes("RGB", (32, 24), bytes(pixels.flatten().tolist())), kind, **options)


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


class TestTransparency:
    picture = reopened(save(row("RGBA", (*RED, 255), (0, 255, 0, 128), INVISIBLE), "PNG"))

    def test_hidden_colours_become_white(self):
        assert colours(self.picture) == [RED, GREEN, WHITE]
        assert opacity(self.picture) == [255, 128, 0]

    def test_flattening_composes_on_white(self):
        flat = self.picture.flattened()
        assert flat.alpha is None
        assert colours(flat) == [RED, (127, 255, 127), WHITE]

    def test_flattening_leaves_the_original_as_it_is(self):
        self.picture.flattened()
        assert colours(self.picture) == [RED, GREEN, WHITE]

    def test_an_opaque_picture_is_flat_already(self):
        opaque = Picture.blank((2, 2))
        assert opaque.flattened() is opaque

    def test_hidden_colours_do_not_bleed_when_resized(self):
        image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
        image.paste((*RED, 255), (0, 0, 32, 64))
        small = reopened(save(image, "PNG")).resized((7, 7))
        assert small.alpha is not None
        visible = [colour for colour, alpha in zip(colours(small), opacity(small), strict=True) if alpha > 8]
        assert visible
        assert all(close(colour, RED, 8) for colour in visible)
        assert small.rgb.getpixel((6, 3)) == WHITE


class TestResizing:
    def test_the_same_size_is_the_same_picture(self):
        picture = Picture.blank((5, 4))
        assert picture.resized((5, 4)) is picture

    @pytest.mark.parametrize("size", [(1, 1), (3, 50), (50, 3), (640, 480)])
    def test_a_plain_picture_stays_plain(self, size):
        resized = Picture.blank((33, 21)).resized(size)
        assert resized.size == size
        assert set(colours(resized)) == {GREY}

    def test_the_mean_is_kept_when_shrinking_much(self):
        picture = reopened(encode(noise(600, 800), format=OutputFormat.PNG, quality=1))
        assert abs(float(picture.resized((8, 6)).to_tensor().mean()) - 0.5) < 0.01

    @pytest.mark.parametrize(
        ("size", "longest_edge", "expected"),
        [
            ((400, 300), 0, (400, 300)),
            ((400, 300), 200, (200, 150)),
            ((300, 400), 200, (150, 200)),
            ((400, 300), 800, (800, 600)),
            ((1000, 667), 500, (500, 334)),
            ((10_000, 1), 100, (100, 1)),
            ((1, 10_000), 1, (1, 1)),
            ((1, 1), 512, (512, 512)),
        ],
    )
    def test_fit_keeps_the_shape(self, size, longest_edge, expected):
        assert fit(Size(*size), longest_edge) == expected

    def test_fit_meets_the_longest_edge_exactly(self):
        sizes = [Size(width, 97) for width in range(97, 400, 7)]
        assert all(max(fit(size, edge)) == edge for size in sizes for edge in range(1, 900, 13))


class TestTensors:
    def test_a_picture_becomes_a_batch_of_one_in_unit_range(self):
        tensor = reopened(save(row("RGB", (255, 0, 51), BLACK), "PNG")).to_tensor()
        assert tensor.shape == (1, 3, 1, 2)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])

    def test_decoding_what_was_encoded_loses_nothing_in_png(self):
        levels = (noise(17, 13) * 255).round() / 255
        assert torch.equal(reopened(encode(levels, format=OutputFormat.PNG, quality=1)).to_tensor(), levels)

    def test_values_are_rounded_not_truncated(self):
        pixels = torch.tensor([0.9999, 100.4 / 255, 100.6 / 255]).view(1, 3, 1, 1)
        assert colours(reopened(encode(pixels, format=OutputFormat.PNG, quality=1))) == [(255, 100, 101)]

    def test_values_out_of_range_are_clamped(self):
        pixels = torch.tensor([-3.0, 1.7, 0.5]).view(1, 3, 1, 1)
        assert colours(reopened(encode(pixels, format=OutputFormat.PNG, quality=1))) == [(0, 255, 128)]

    def test_half_precision_and_gradients_are_accepted(self):
        pixels = waves(9, 9).bfloat16().requires_grad_()
        assert reopened(encode(pixels, format=OutputFormat.PNG, quality=1)).size == (9, 9)
        assert preview(pixels, longest_edge=4).width == 4


class TestEncoding:
    @pytest.mark.parametrize("kind", OutputFormat)
    def test_the_media_type_is_that_of_the_bytes(self, kind):
        data = encode(waves(8, 8), format=kind, quality=90)
        assert WRITTEN_FORMATS[kind].media_type == Image.open(io.BytesIO(data)).get_format_mimetype()

    @pytest.mark.parametrize("kind", OutputFormat)
    @pytest.mark.parametrize("size", [(1, 1), (17, 13), (120, 160)])
    def test_the_same_pixels_give_the_same_bytes(self, kind, size):
        assert encode(noise(*size), format=kind, quality=90) == encode(noise(*size), format=kind, quality=90)

    @pytest.mark.parametrize(("kind", "bound"), [("png", 0.51), ("jpeg", 2.0), ("webp", 4.0)])
    def test_a_round_trip_stays_close(self, kind, bound):
        pixels = waves(96, 120)
        again = reopened(encode(pixels, format=OutputFormat(kind), quality=95)).to_tensor()
        assert float((again - pixels).square().mean().sqrt()) * 255 < bound

    @pytest.mark.parametrize("quality", [1, 89, 90, 95, 100])
    @pytest.mark.parametrize("kind", OutputFormat)
    def test_pure_noise_can_be_encoded_at_every_quality(self, kind, quality):
        assert reopened(encode(noise(300, 300).round(), format=kind, quality=quality)).size == (300, 300)

    @pytest.mark.parametrize("kind", [OutputFormat.JPEG, OutputFormat.WEBP])
    def test_a_lower_quality_is_smaller(self, kind):
        sizes = [len(encode(noise(64, 64), format=kind, quality=quality)) for quality in (10, 50, 95)]
        assert sizes == sorted(sizes)

    @pytest.mark.parametrize(("quality", "expected"), [(89, [(2, 2), (1, 1), (1, 1)]), (90, [(1, 1)] * 3)])
    def test_high_quality_keeps_the_full_resolution_of_colours(self, quality, expected):
        with Image.open(io.BytesIO(encode(waves(32, 32), format=OutputFormat.JPEG, quality=quality))) as image:
            assert [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer] == expected

    @pytest.mark.parametrize("kind", [OutputFormat.PNG, OutputFormat.WEBP])
    def test_transparency_is_put_back(self, kind):
        alpha = Image.linear_gradient("L").resize((16, 16))
        again = reopened(encode(waves(16, 16), format=kind, quality=90, alpha=alpha))
        assert again.alpha is not None
        assert again.alpha.tobytes() == alpha.tobytes()

    def test_a_transparent_png_does_not_turn_black(self):
        picture = reopened(save(row("RGBA", (*RED, 255), INVISIBLE), "PNG"))
        data = encode(picture.to_tensor(), format=OutputFormat.PNG, quality=1, alpha=picture.alpha)
        with Image.open(io.BytesIO(data)) as image:
            assert list(image.get_flattened_data()) == [(*RED, 255), (*WHITE, 0)]

    def test_a_jpeg_is_white_where_it_was_transparent(self):
        alpha = Image.new("L", (32, 16), 0)
        alpha.paste(255, (0, 0, 16, 16))
        picture = reopened(encode(torch.zeros(1, 3, 16, 32), format=OutputFormat.JPEG, quality=95, alpha=alpha))
        assert close(picture.rgb.getpixel((4, 8)), BLACK)
        assert close(picture.rgb.getpixel((28, 8)), WHITE)


class TestPreview:
    def test_a_large_picture_is_scaled_down(self):
        small = preview(waves(300, 400), longest_edge=100)
        assert (small.width, small.height) == (100, 75)
        assert reopened(small.data).size == (100, 75)

    def test_a_small_picture_is_not_enlarged(self):
        small = preview(waves(20, 10), longest_edge=100)
        assert (small.width, small.height) == reopened(small.data).size == (10, 20)

    def test_it_is_a_jpeg(self):
        small = preview(waves(20, 10), longest_edge=16)
        assert isinstance(small, EncodedPreview)
        assert small.data.startswith(b"\xff\xd8\xff")

    def test_fine_detail_is_averaged_not_aliased(self):
        stripes = torch.tensor([0.0, 1.0]).repeat(128).expand(1, 3, 256, 256)
        picture = reopened(preview(stripes, longest_edge=32).data)
        assert all(close(colour, GREY, 8) for colour in colours(picture))
