"""Checks of the paths that a command writes, made before any work is done."""

import os
from collections.abc import Callable
from pathlib import Path

import click


def writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a file.

    Raises:
        click.BadParameter: the file could not be written.
    """
    if path is None:
        return None
    folder = path.resolve().parent
    if path.is_dir():
        raise click.BadParameter(f"{path} is a directory, expected is a file", context, parameter)
    if not folder.is_dir():
        raise click.BadParameter(f"the directory {folder} does not exist", context, parameter)
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return path


def writable_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a folder.

    Raises:
        click.BadParameter: the folder could not be made, or no file could be written into it.
    """
    if path is None or not path.exists():
        return writable(context, parameter, path)
    if not path.is_dir():
        raise click.BadParameter(f"{path} is a file, expected is a directory", context, parameter)
    if not os.access(path, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return path


def writable_as(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return a check of a file that could not be written or has none of the suffixes."""

    def check(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{path} has none of the suffixes {', '.join(suffixes)}", context, parameter)
        return writable(context, parameter, path)

    return check
