"""The decoder: the bytes of a picture file to pixels. Hostile bytes end in a PictureError and in nothing else."""

import contextlib
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from nst_service.engine.errors import PictureError, PictureTooCostlyError
from nst_service.engine.pictures.channels import split_channels
from nst_service.engine.pictures.color_profiles import to_srgb
from nst_service.engine.pictures.foreign_formats import foreign_name
from nst_service.engine.pictures.formats import READ_FORMATS, names_of
from nst_service.engine.pictures.guards import BoundedReader, check_parts, check_size, check_tiles
from nst_service.engine.pictures.orientation import upright_transpose
from nst_service.engine.pictures.picture import Picture, set_aside
from nst_service.engine.sizes import Size

_ACCEPTED = f"accepted formats are {names_of(READ_FORMATS)}"
_PILLOW_FORMATS = tuple(known.pillow_name for known in READ_FORMATS)


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a picture of one of the `READ_FORMATS`: upright by its EXIF orientation, in sRGB by its ICC profile.

    Args:
        data: the whole file; of a sequence the first frame is used.
        max_pixels: width times height beyond which it is refused, before any pixel is decoded.

    Raises:
        PictureError: the file is empty, of another format, damaged, truncated, or too large.
    """
    with opened(data, max_pixels=max_pixels) as image:
        image.load()
        return _normalised(image)


@contextlib.contextmanager
def opened(data: bytes, *, max_pixels: int) -> Iterator[ImageFile]:
    """Yield a picture whose header has been read and whose pixels have not; raise as `decode` does.

    Errors of Pillow become a PictureError in the context, too.
    """
    if not data:
        raise PictureError(f"is empty; {_ACCEPTED}")
    try:
        check_parts(data)
        with Image.open(BoundedReader(data), formats=_PILLOW_FORMATS) as image:
            check_size(Size(*image.size), max_pixels)
            check_tiles(image, max_pixels)
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        name = foreign_name(data)
        what = "" if name is None else f": it is {name}"
        raise PictureError(f"cannot be read as a picture{what}; {_ACCEPTED}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"has far too many pixels; this server accepts at most {max_pixels}") from error
    except MemoryError as error:
        raise PictureTooCostlyError("needs more memory to decode than this server has") from error
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes.
        raise PictureError("is damaged or truncated") from error


def _normalised(image: Image.Image) -> Picture:
    colors, alpha = split_channels(image)
    rgb = to_srgb(colors, image.info.get("icc_profile"))
    turn = upright_transpose(image)
    if turn is not None:
        rgb = rgb.transpose(turn)
        alpha = alpha and alpha.transpose(turn)
    return Picture(rgb) if alpha is None else set_aside(rgb, alpha)
