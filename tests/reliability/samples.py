"""Small pictures of every format that the engine reads, and defects of their files."""

import io
import struct
import zlib
from collections.abc import Mapping
from functools import cache

import numpy as np
import png
import tifffile
from hypothesis import strategies as st
from PIL import Image, ImageCms

_WIDTH, _HEIGHT = 29, 22
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@cache
def samples() -> Mapping[str, bytes]:
    """Intact files by their names."""
    rgb = Image.fromarray(_levels(3))
    second = rgb.transpose(Image.Transpose.ROTATE_180)
    rgba, grey, deep = Image.fromarray(_levels(4)), rgb.convert("L"), Image.fromarray(_deep(1)[..., 0])
    palette = rgb.quantize(16)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "turned to the right"
    many = {"save_all": True, "append_images": [second, rgb.copy()]}
    return {
        "png rgb": _saved(rgb, "PNG"),
        "png grey": _saved(grey, "PNG"),
        "png 1 bit": _saved(rgb.convert("1"), "PNG"),
        "png grey alpha": _saved(rgba.convert("LA"), "PNG"),
        "png alpha": _saved(rgba, "PNG"),
        "png palette": _saved(palette, "PNG"),
        "png palette transparent": _saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "png one colour transparent": _saved(rgb, "PNG", transparency=(1, 2, 3)),
        "png 16 bit grey": _saved(deep, "PNG"),
        "png 16 bit rgb": _deep_png(3),
        "png 16 bit alpha": _deep_png(4),
        "png interlaced": _deep_png(3, bits=8, interlace=True),
        "png interlaced palette": _saved_palette_interlaced(palette),
        "png described": _saved(rgb, "PNG", exif=exif, icc_profile=srgb, dpi=(72, 72)),
        "png animated": _saved(rgb, "PNG", **many),
        "jpeg rgb": _saved(rgb, "JPEG"),
        "jpeg grey": _saved(grey, "JPEG"),
        "jpeg cmyk": _saved(rgb.convert("CMYK"), "JPEG"),
        "jpeg progressive": _saved(rgb, "JPEG", progressive=True, subsampling=2),
        "jpeg described": _saved(rgb, "JPEG", exif=exif, icc_profile=srgb, comment=b"a comment"),
        "jpeg several": _saved(rgb, "MPO", **many),
        "webp lossy": _saved(rgb, "WEBP"),
        "webp lossless": _saved(rgb, "WEBP", lossless=True),
        "webp alpha": _saved(rgba, "WEBP"),
        "webp animated": _saved(rgb, "WEBP", **many),
        "webp described": _saved(rgb, "WEBP", exif=exif, icc_profile=srgb),
        "tiff rgb": _saved(rgb, "TIFF"),
        "tiff alpha": _saved(rgba, "TIFF"),
        "tiff 1 bit": _saved(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff palette": _saved(palette, "TIFF"),
        "tiff 16 bit grey": _saved(deep, "TIFF"),
        "tiff 16 bit rgb": _tiff(_deep(3), photometric="rgb"),
        "tiff float": _tiff(_levels(1)[..., 0].astype(np.float32) / 255),
        "tiff lzw": _saved(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": _saved(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff packbits": _saved(rgb, "TIFF", compression="packbits"),
        "tiff jpeg": _saved(rgb, "TIFF", compression="jpeg"),
        "tiff cmyk": _saved(rgb.convert("CMYK"), "TIFF"),
        "tiff ycbcr": _saved(rgb.convert("YCbCr"), "TIFF"),
        "tiff lab": _saved(_lab(rgb), "TIFF"),
        "tiff tiled": _tiff(_levels(3), photometric="rgb", tile=(16, 16)),
        "tiff planar": _tiff(_levels(3).transpose(2, 0, 1).copy(), photometric="rgb", planarconfig="separate"),
        "tiff big": _saved(rgb, "TIFF", big_tiff=True),
        "tiff motorola": _tiff(_levels(3), photometric="rgb", byteorder=">"),
        "tiff described": _saved(rgb, "TIFF", exif=exif, icc_profile=srgb),
        "tiff several": _saved(rgb, "TIFF", **many),
    }


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sample with some defects: bits, numbers of a header, parts that are lost, repeated or from another file."""
    files = samples()
    name = draw(st.sampled_from(sorted(files)))
    data = bytearray(files[name])
    for _ in range(draw(st.integers(0, 5))):
        place = _place(draw, len(data))
        match draw(st.sampled_from(("bit", "byte", "number", "lost", "repeated", "other", "end"))):
            case "bit":
                data[place : place + 1] = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[place : place + 1])
            case "byte":
                data[place : place + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                number = draw(_numbers())
                data[place : place + len(number)] = number
            case "lost":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeated":
                piece = data[place : place + draw(st.integers(1, 64))]
                data[place:place] = piece * draw(st.integers(1, 64))
            case "other":
                other = files[draw(st.sampled_from(sorted(files)))]
                begin = _place(draw, len(other))
                data[place:] = other[begin:]
            case "end":
                del data[place:]
    # A PNG with a wrong checksum goes no further than that.
    return _with_true_checksums(bytes(data)) if draw(st.booleans()) else bytes(data)


def _place(draw: st.DrawFn, length: int) -> int:
    """Draw a place in a file: mostly near the beginning, where the headers are, and seldom in the signature."""
    last = max(0, length - 1)
    return draw(st.integers(min(last, 8), min(last, 512)) | st.integers(0, last))


def _numbers() -> st.SearchStrategy[bytes]:
    """Draw the bytes of a number that is invalid as a size, a count or an offset."""
    limits = (0, 1, 2, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
    number = st.sampled_from(limits) | st.integers(0, 2**32 - 1)
    return st.builds(
        lambda value, layout: struct.pack(layout, value & (2 ** (8 * struct.calcsize(layout)) - 1)),
        number,
        st.sampled_from(("<H", ">H", "<I", ">I", "<Q", ">Q")),
    )


def _with_true_checksums(data: bytes) -> bytes:
    """Correct the checksums of a PNG as far as its chunks can be followed. Other bytes stay as they are."""
    if not data.startswith(_PNG_SIGNATURE):
        return data
    parts, place = [_PNG_SIGNATURE], len(_PNG_SIGNATURE)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunk = data[place + 4 : place + 8 + length]
        if place + 12 + length > len(data):
            break
        parts += [data[place : place + 4], chunk, struct.pack(">I", zlib.crc32(chunk))]
        place += 12 + length
    return b"".join([*parts, data[place:]])


def _levels(channels: int) -> np.ndarray:
    """Smooth waves with some noise, 8 bits."""
    y, x, channel = np.meshgrid(np.arange(_HEIGHT), np.arange(_WIDTH), np.arange(channels), indexing="ij")
    noise = np.random.default_rng(0).integers(0, 40, (_HEIGHT, _WIDTH, channels))
    return np.clip(128 + 100 * np.sin(x / 5 + channel) * np.cos(y / 4) + noise - 20, 0, 255).astype(np.uint8)


def _deep(channels: int) -> np.ndarray:
    return _levels(channels).astype(np.uint16) * 257


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    # A copy: saving leaves settings of one format behind that confuse another.
    image = image.copy()
    appended = [each.copy() for each in options.pop("append_images", ())]
    image.save(buffer := io.BytesIO(), kind, append_images=appended, **options)
    return buffer.getvalue()


def _deep_png(channels: int, *, bits: int = 16, interlace: bool = False) -> bytes:
    levels = _deep(channels) if bits == 16 else _levels(channels)
    writer = png.Writer(
        _WIDTH, _HEIGHT, greyscale=False, alpha=channels == 4, bitdepth=bits, interlace=interlace, compression=6
    )
    writer.write_array(buffer := io.BytesIO(), levels.flatten().tolist())
    return buffer.getvalue()


def _saved_palette_interlaced(image: Image.Image) -> bytes:
    colours = np.array(image.getpalette()).reshape(-1, 3).tolist()
    writer = png.Writer(_WIDTH, _HEIGHT, palette=[tuple(colour) for colour in colours], bitdepth=8, interlace=True)
    writer.write_array(buffer := io.BytesIO(), list(image.tobytes()))
    return buffer.getvalue()


def _tiff(levels: np.ndarray, **options: object) -> bytes:
    byteorder = options.pop("byteorder", "<")
    with tifffile.TiffWriter(buffer := io.BytesIO(), byteorder=byteorder) as file:
        file.write(levels, metadata=None, software=False, **options)
    return buffer.getvalue()


def _lab(rgb: Image.Image) -> Image.Image:
    return ImageCms.profileToProfile(
        rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
