#!/usr/bin/env bash
# Reading the EXIF of an opened PNG decodes all of its pixels; the size of a TIFF depends on whether it was decoded.
#
# Guess: Pillow's `Image.open` reads headers, and so do `size` and `getexif()`: a program may look at both before it
# decides whether it wants to decode a picture.
# What happens: `getexif()` of a PNG without an eXIf chunk before its pixels decodes them all, since the chunk may come
# after them. The `size` of a TIFF with the orientation "turned" is the turned size before `load()`, if the tag
# says so, and the stored size, if only XMP says so, although `exif_transpose` turns both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check pillow==13.0.0
cat > read.py <<'PYTHON'
import io
import sys

import PIL
from PIL import Image, ImageOps

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)
ORIENTATION, XML_PACKET = 274, 700


def decoded(picture):
    """Return whether the pixels of a picture have been decoded."""
    return getattr(picture, "_im", None) is not None


def png(exif):
    file = io.BytesIO()
    options = {"exif": Image.Exif()} if exif else {}
    if exif:
        options["exif"][ORIENTATION] = 1
    Image.new("RGB", (600, 400)).save(file, "PNG", **options)
    picture = Image.open(file)
    before = decoded(picture)
    picture.getexif()
    return before, decoded(picture)


def tiff(tags):
    file = io.BytesIO()
    Image.new("RGB", (60, 40)).save(file, "TIFF", tiffinfo=tags)
    picture = Image.open(file)
    before = picture.size
    return before, ImageOps.exif_transpose(picture).size


print("Pillow", PIL.__version__)
found = {
    "PNG with eXIf before its pixels: decoded before and after getexif()": png(exif=True),
    "PNG without eXIf: decoded before and after getexif()": png(exif=False),
    "TIFF turned by its tag: size before load() and after exif_transpose()": tiff({ORIENTATION: 6}),
    "TIFF turned by XMP only: size before load() and after exif_transpose()": tiff({XML_PACKET: XMP.encode()}),
}
for name, value in found.items():
    print(f"{name}: {value}")
expected = [(False, False), (False, True), ((40, 60), (40, 60)), ((60, 40), (40, 60))]
sys.exit(list(found.values()) != expected)
PYTHON
environment/bin/python read.py
