"""The paths that a command reads and writes. What it writes is checked before any work is done."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from nst_client.files import check_writable, check_writable_folder

STDIN = Path("/dev/stdin")
STDOUT = Path("/dev/stdout")

_STANDARD_STREAMS = "nst_client.standard_streams"
"""The key under which a context keeps which parameter uses stdin, and which one stdout."""


class _PathOrStream(click.Path):
    """A path, or '-' for a standard stream, which only one parameter of a command may use."""

    def __init__(self, stream: Path):
        super().__init__(path_type=Path)
        self._stream = stream

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path."""
        if value != "-":
            return super().convert(value, parameter, context)
        name = self._stream.name
        if context is not None:
            used = context.meta.setdefault(_STANDARD_STREAMS, set())
            if self._stream in used:
                self.fail(f"'-' is given more than once, there is one {name}", parameter, context)
            used.add(self._stream)
        stream: IO[str] | None = sys.stdin if self._stream == STDIN else sys.stdout
        if stream is None:
            self.fail(f"{name} is closed", parameter, context)
        if self._stream == STDOUT and stream.isatty():
            self.fail("stdout is a terminal, which cannot show a picture: redirect it", parameter, context)
        return self._stream


input_file = _PathOrStream(STDIN)
"""The type of a picture that is read; '-' is stdin."""
output_file = _PathOrStream(STDOUT)
"""The type of a picture that is written; '-' is stdout."""


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder. No name is too long for this."""
    try:
        return path.is_dir()
    except OSError:
        return False


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a file.

    Raises:
        click.BadParameter: the file could not be written.
    """
    if path is None:
        return None
    folder = Path(os.path.realpath(path)).parent
    if not os.path.lexists(path):
        if not is_folder(folder):
            raise click.BadParameter(f"the directory {folder} does not exist", context, parameter)
        if not os.access(folder, os.W_OK):
            raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return _checked(check_writable, context, parameter, path)


def writable_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a folder.

    Raises:
        click.BadParameter: the folder could not be made, or no file could be written into it.
    """
    if path is None:
        return None
    folder = path if is_folder(path) else Path(os.path.realpath(path)).parent
    if not is_folder(folder):
        raise click.BadParameter(f"the directory {folder} does not exist", context, parameter)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return _checked(check_writable_folder, context, parameter, path)


def writable_as(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return a check of a file that could not be written or has none of the suffixes."""

    def check(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{path} has none of the suffixes {', '.join(suffixes)}", context, parameter)
        return writable(context, parameter, path)

    return check


def _checked(check: Callable[[Path], None], context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    try:
        check(path)
    except IsADirectoryError:
        raise click.BadParameter(f"{path} is a directory, expected is a file", context, parameter) from None
    except NotADirectoryError:
        raise click.BadParameter(f"{path} is a file, expected is a directory", context, parameter) from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.BadParameter(f"{path} cannot be written: {reason}", context, parameter) from error
    return path
