"""Pictures and files of pictures, as the tests of this folder need them."""

import io
import struct
import zlib

import pytest
import torch
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.picture import Picture
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

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


def encoded_noise(kind: str, **options: object) -> bytes:
    pixels = (noise(24, 32)[0] * 255).byte().permute(1, 2, 0).contiguous()
    return save(Image.frombytes("RGB", (32, 24), bytes(pixels.flatten().tolist())), kind, **options)
