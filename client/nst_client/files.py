"""Reading and writing the files of pictures."""

import contextlib
import dataclasses
import errno
import io
import os
import re
import secrets
import select
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from nst_client.errors import InvalidRequestError
from nst_client.options import Picture, PictureFormat, Style, Styles

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

_STANDARD_DESCRIPTORS = MappingProxyType({"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2})
_DESCRIPTOR = re.compile(r"/(dev|proc/(?P<process>[^/]+))/fd/(?P<number>\d+)")
_MOST_LINKS = 40
"""The number of symbolic links in a row that Linux follows."""

_NOT_REPLACEABLE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EBUSY,
        errno.EXDEV,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.ETXTBSY,
    }
)
"""The errors of a file that cannot be replaced by another one, but may still be overwritten."""
_NO_TERMINAL = getattr(os, "O_NOCTTY", 0)
_WITHOUT_WAITING = _NO_TERMINAL | getattr(os, "O_NONBLOCK", 0)
_BLOCK_BYTES = 2**20


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


def read_styles(styles: Styles) -> list[Style]:
    """Return styles with the bytes of their pictures and masks.

    Raises:
        InvalidRequestError: a file cannot be read.
    """
    listed: Sequence[Picture | Style] = [styles] if isinstance(styles, bytes | str | os.PathLike | Style) else styles
    return [
        dataclasses.replace(
            style,
            picture=read_picture(f"styles[{index}].picture", style.picture),
            mask=None if style.mask is None else read_picture(f"styles[{index}].mask", style.mask),
        )
        for index, style in enumerate(style if isinstance(style, Style) else Style(style) for style in listed)
    ]


def check_writable(path: str | os.PathLike[str]) -> None:
    """Open a file as `write_atomically` does, and leave everything as it was.

    Raises:
        OSError: the file could not be written.
    """
    descriptor = _descriptor(path)
    if descriptor is not None:
        os.write(descriptor, b"")
        return
    target = _resolved(path)
    status = _status(target)
    if status is None:
        with contextlib.suppress(FileExistsError):
            _create_and_remove(target)
    elif stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a directory, expected is a file")
    elif stat.S_ISFIFO(status.st_mode):
        # Its reader would take an opened and closed pipe for the end of the data.
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES).lower())
    else:
        opened = os.open(target, os.O_WRONLY | _WITHOUT_WAITING)
        try:
            os.write(opened, b"")
        finally:
            os.close(opened)


def check_writable_folder(path: str | os.PathLike[str]) -> None:
    """Make the folder or a file in it, and leave everything as it was.

    Raises:
        OSError: the folder could not be made, or no file could be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, expected is a directory") from None
        _create_and_remove(temporary_name(folder))
    else:
        folder.rmdir()


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name beside it and rename it, so that nobody ever sees a part of it.

    A file that exists keeps its mode, owner and extended attributes. Where it cannot be replaced, its contents are
    overwritten: a file that is mounted alone, or lies in a folder that may not be written. Devices, pipes and the
    descriptors of this process, such as `/dev/stdout`, are written to.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
    """
    target = _resolved(path)
    status = _status(target)
    if _descriptor(path) is not None or not _is_regular(status):
        _overwrite(path, io.BytesIO(data))
        return
    temporary = temporary_name(target.parent)
    try:
        try:
            temporary.touch(exist_ok=False)
        except OSError as error:
            if status is None or error.errno not in _NOT_REPLACEABLE:
                raise
            _overwrite(target, io.BytesIO(data))
            return
        temporary.write_bytes(data)
        replace_file(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(temporary: Path, path: str | os.PathLike[str]) -> None:
    """Move a complete temporary file to its path, as `write_atomically` does.

    Raises:
        OSError: the file cannot be written. The temporary file is still there.
    """
    target = _resolved(path)
    status = _status(target)
    try:
        if _descriptor(path) is None and _is_regular(status):
            if status is not None:
                _copy_attributes(target, status, temporary)
            temporary.replace(target)
            return
    except OSError as error:
        if status is None or error.errno not in _NOT_REPLACEABLE:
            raise
    with temporary.open("rb") as contents:
        _overwrite(path, contents)
    temporary.unlink()


def temporary_name(folder: Path) -> Path:
    """Return a path for a temporary file. Its name is short, so that every file system takes it."""
    return folder / f".nst-{secrets.token_hex(4)}"


def _descriptor(path: str | os.PathLike[str]) -> int | None:
    """Return the number of the open descriptor that a path such as /dev/stdout stands for; None for other paths.

    To open it would truncate the file that it is redirected to, and fails for a socket.
    """
    name = os.path.abspath(path)  # noqa: PTH100 # `Path.resolve` would follow the links, to names that do not exist.
    for _ in range(_MOST_LINKS):
        if name in _STANDARD_DESCRIPTORS:
            return _STANDARD_DESCRIPTORS[name]
        found = _DESCRIPTOR.fullmatch(name)
        if found and found["process"] in (None, "self", "thread-self", str(os.getpid())):
            return int(found["number"])
        try:
            name = os.path.normpath(Path(name).parent / os.readlink(name))  # noqa: PTH115
        except OSError:
            return None
    return None


def _resolved(path: str | os.PathLike[str]) -> Path:
    """Return the path without symbolic links. Unlike `Path.resolve`, this accepts links in a circle."""
    return Path(os.path.realpath(path))


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a file; None if there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _is_regular(status: os.stat_result | None) -> bool:
    """Return whether a file with this status can be replaced by another one. A device or a pipe must not be."""
    return status is None or stat.S_ISREG(status.st_mode)


def _create_and_remove(path: Path) -> None:
    path.touch(exist_ok=False)
    path.unlink()


def _copy_attributes(source: Path, status: os.stat_result, path: Path) -> None:
    """Give a file the owner, mode and extended attributes of another one.

    Raises:
        PermissionError: this process may not set them.
    """
    now = path.stat()
    if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
        os.chown(path, status.st_uid, status.st_gid)
    shutil.copystat(source, path)
    os.utime(path)


def _overwrite(path: str | os.PathLike[str], contents: BinaryIO) -> None:
    """Write to a file, device, pipe or descriptor in place."""
    descriptor = _descriptor(path)
    opened = os.dup(descriptor) if descriptor is not None else os.open(path, os.O_WRONLY | _NO_TERMINAL)
    try:
        size = 0
        while block := contents.read(_BLOCK_BYTES):
            _write_all(opened, block)
            size += len(block)
        if descriptor is None and stat.S_ISREG(os.fstat(opened).st_mode):
            os.ftruncate(opened, size)
    finally:
        os.close(opened)


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # A pipe that another process has set to non-blocking.
            select.select((), (descriptor,), ())
