import io
import struct
import zlib

import pytest
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.headers import read_size
from nst_service.engine.sizes import Size
from PIL import Image
from PIL.ExifTags import Base as ExifTag
from PIL.PngImagePlugin import PngInfo

_MAX_PIXELS = 10**6
_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ExifTag.Orientation] = orientation
    return data


def saved(kind: str, **options: object) -> bytes:
    Image.new("RGB", (30, 20), (90, 120, 200)).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def behind_the_pixels(*chunks: bytes) -> bytes:
    """Return a PNG with chunks between its pixels and its end."""
    data = saved("PNG")
    return data[:-12] + b"".join(chunks) + data[-12:]


def text(keyword: str, content: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt(keyword, content)
    return info


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_the_header_tells_the_upright_size(kind: str, orientation: int):
    data = saved(kind, exif=exif(orientation)) if orientation else saved(kind)
    expected = Size(20, 30) if orientation >= 5 else Size(30, 20)
    assert read_size(data, max_pixels=_MAX_PIXELS) == expected == decode(data, max_pixels=_MAX_PIXELS).size


@pytest.mark.parametrize(
    "data",
    [
        behind_the_pixels(chunk(b"eXIf", exif(6).tobytes()[6:])),
        behind_the_pixels(chunk(b"tEXt", b"Raw profile type exif\0" + b"\nexif\n8\n" + b"4949")),
        behind_the_pixels(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP.encode())),
        saved("PNG", pnginfo=text("XML:com.adobe.xmp", _XMP)),
        saved("JPEG", xmp=_XMP.encode()),
        saved("TIFF", tiffinfo={700: _XMP.encode()}),
        saved("TIFF", compression="jpeg", exif=exif(6)),
        saved("PNG", save_all=True, append_images=[Image.new("RGB", (30, 20))]),
    ],
    ids=[
        *("exif behind the pixels of a png", "damaged exif", "xmp behind the pixels of a png"),
        *("xmp of a png", "xmp of a jpeg", "xmp of a tiff", "tiff with libtiff", "animation"),
    ],
)
def test_the_header_tells_the_size_that_decoding_gives(data: bytes):
    assert read_size(data, max_pixels=_MAX_PIXELS) == decode(data, max_pixels=_MAX_PIXELS).size


def test_exif_data_behind_the_pixels_count():
    data = behind_the_pixels(chunk(b"eXIf", exif(6).tobytes()[6:]))
    assert read_size(data, max_pixels=_MAX_PIXELS) == Size(20, 30)


def test_no_pixel_is_needed():
    data = saved("PNG")
    assert read_size(data[: data.index(b"IDAT") + 8], max_pixels=_MAX_PIXELS) == Size(30, 20)


def test_a_picture_of_too_many_pixels_is_refused():
    with pytest.raises(PictureError, match="at most 599"):
        read_size(saved("PNG"), max_pixels=599)


def test_a_png_of_far_too_many_chunks_is_refused():
    with pytest.raises(PictureError, match="far too many parts"):
        read_size(behind_the_pixels(*[chunk(b"tEXt", b"a\0b")] * 100_001), max_pixels=_MAX_PIXELS)
