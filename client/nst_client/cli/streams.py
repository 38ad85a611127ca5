"""Writing to stdout and stderr where they may be closed, full, or read by nobody any more."""

import contextlib
import os
import sys
from collections.abc import Iterator

import click
from rich.console import Console


class ReliableConsole(Console):
    """A console that raises BrokenPipeError. That of rich ends the program and closes stdout instead."""

    def on_broken_pipe(self) -> None:
        """Raise the error that is being handled."""
        raise  # noqa: PLE0704 # rich calls this while it handles the error.


def echo_error(text: str) -> None:
    """Write a line to stderr, if anything can be written there."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(text, err=True)


@contextlib.contextmanager
def writing_stdout(remark: str = "") -> Iterator[None]:
    """End the command if stdout cannot be written in the body.

    Args:
        remark: a sentence that the message ends with.
    """
    try:
        yield
    except OSError as error:
        message = f"cannot write to stdout: {error.strerror or error}"
        raise click.ClickException(f"{message}. {remark}" if remark else message) from error


def print_line(text: str) -> None:
    """Write a line to stdout, and end the command if that is impossible."""
    with writing_stdout():
        click.echo(text)


def discard_unwritten() -> None:
    """Drop the output that cannot be written, so that Python does not fail as it exits."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
