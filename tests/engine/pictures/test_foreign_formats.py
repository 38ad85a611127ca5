import base64

import pytest
from nst_service.engine.errors import PictureError
from nst_service.engine.pictures.decode import decode

ACCEPTED = "; accepted formats are PNG, JPEG, WebP and TIFF"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GIF89a" + bytes(20), ": it is a GIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ": it is a HEIC picture"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", ": it is a HEIC picture"),
        (b"\0\0\0\x1cftypavif" + bytes(20), ": it is an AVIF picture"),
        (b"\0\0\0\x18ftypmp42" + bytes(20), ": it is a video"),
        (b"\xff\x0a" + bytes(20), ": it is a JPEG XL picture"),
        (b"BM" + bytes(20), ": it is a BMP"),
        (b"%PDF-1.7\n", ": it is a PDF"),
        (b"PK\3\4" + bytes(20), ": it is a ZIP archive"),
        (b"<!DOCTYPE html><html><body>Not Found", ": it is a page in HTML"),
        (b"\xef\xbb\xbf\n  <html lang='en'>", ": it is a page in HTML"),
        (b"<!-- a comment --><HTML>", ": it is a page in HTML"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', ": it is an SVG"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ": it is a file in XML"),
        (b'{"error": "not found"}', ": it is a file in JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", ": it is a pointer of Git LFS, not the file itself"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)), ": it is encoded in Base64: send the bytes themselves"),
        (b"data:image/png;base64,iVBORw0KGgo", ": it is encoded in Base64: send the bytes themselves"),
        (b"nothing that anybody knows", ""),
    ],
)
def test_a_file_that_is_no_picture_is_named_as_what_it_is(data: bytes, name: str):
    with pytest.raises(PictureError) as caught:
        decode(data, max_pixels=10**6)
    assert str(caught.value) == f"cannot be read as a picture{name}{ACCEPTED}"
