"""Names of files that people take for pictures that can be read, by their first bytes."""

import re

_LOOKED_AT_BYTES = 256
_FOREIGN = (
    (re.compile(rb"GIF8[79]a"), "a GIF"),
    (re.compile(rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL), "a HEIC picture"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "an AVIF picture"),
    (re.compile(rb"....ftyp", re.DOTALL), "a video"),
    (re.compile(rb"\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL), "a video"),
    (re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), "a JPEG XL picture"),
    (re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 picture"),
    (re.compile(rb"BM.{4}\x00{4}", re.DOTALL), "a BMP"),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"\x00\x00\x01\x00"), "an icon"),
    (re.compile(rb"%PDF-"), "a PDF"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "a file that is compressed with gzip"),
    (re.compile(rb"version https://git-lfs"), "a pointer of Git LFS, not the file itself"),
    (re.compile(rb"data:image/|iVBORw0KGgo|/9j/[0-9A-Za-z+/]|UklGR"), "encoded in Base64: send the bytes themselves"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg\b", re.I | re.DOTALL), "an SVG"),
    (re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", re.I | re.DOTALL), "a page in HTML"),
    (re.compile(rb"\s*<\?xml"), "a file in XML"),
    (re.compile(rb'\s*[{\[]\s*["{\[\]}]'), "a file in JSON"),
)


def foreign_name(data: bytes) -> str | None:
    """Return what a file is in place of a picture, with its article; None if that is not known."""
    beginning = data[:_LOOKED_AT_BYTES].removeprefix(b"\xef\xbb\xbf")
    return next((name for pattern, name in _FOREIGN if pattern.match(beginning)), None)
