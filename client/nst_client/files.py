"""Reading and writing the files of pictures."""

import os
import secrets
from pathlib import Path
from types import MappingProxyType

from nst_client.errors import InvalidRequestError
from nst_client.options import Picture, PictureFormat

PICTURE_FORMATS = MappingProxyType(
    {
        ".png": PictureFormat.PNG,
        ".jpg": PictureFormat.JPEG,
        ".jpeg": PictureFormat.JPEG,
        ".webp": PictureFormat.WEBP,
        ".tif": PictureFormat.TIFF,
        ".tiff": PictureFormat.TIFF,
    }
)
"""The format for the suffix of a file, in lower case."""


def read_picture(field: str, picture: Picture) -> bytes:
    """Return the bytes of a picture.

    Args:
        field: the name of the picture in errors.
        picture: the bytes of an encoded picture, or the path of its file.

    Raises:
        InvalidRequestError: the file cannot be read, or `picture` is neither bytes nor a path.
    """
    match picture:
        case bytes():
            return picture
        case str() | os.PathLike():
            try:
                return Path(picture).read_bytes()
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise InvalidRequestError.of(field, f"cannot read the file {os.fspath(picture)!r}: {reason}") from error
        case _:
            raise InvalidRequestError.of(
                field, f"is a {type(picture).__name__}, accepted are the bytes of an encoded picture or a path"
            )


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it, so that nobody ever sees a part of it.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        # A device or a pipe must not be replaced by a file.
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
