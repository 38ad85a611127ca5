"""The end of a command: the message and the exit code of each error."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import click

from nst_client.cli.streams import echo_error
from nst_client.errors import (
    ConnectionOptionsError,
    DeadlineExceededError,
    DoesNotFitError,
    InvalidRequestError,
    JobCancelledError,
    NstError,
    PermissionDeniedError,
    ProtocolError,
    QueueFullError,
    QuotaExceededError,
    RequestConflictError,
    RequestTooLargeError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
)
from nst_client.session import TARGET

CANCELLED = 130
NOT_SERVING = 3
INCOMPLETE = 1
"""The exit code if the picture was written, but another file or the events could not be."""

_CODES = MappingProxyType(
    {
        InvalidRequestError: 2,
        ConnectionOptionsError: 2,
        QuotaExceededError: 2,
        UnauthenticatedError: 7,
        PermissionDeniedError: 7,
        RequestTooLargeError: 2,
        RequestConflictError: 2,
        UnavailableError: NOT_SERVING,
        QueueFullError: NOT_SERVING,
        StoreError: NOT_SERVING,
        DoesNotFitError: 4,
        DeadlineExceededError: 5,
        ProtocolError: 6,
        JobCancelledError: CANCELLED,
    }
)

_FLAG_OF_FIELD = MappingProxyType(
    {
        "content": "CONTENT",
        "styles": "STYLE",
        "content_mask": "--mask",
        "init_picture": "--init-picture",
        "options.image_size": "--size",
        "options.min_image_size": "--min-size",
        "options.time_budget_seconds": "--time-budget",
        "options.content_layers": "--content-layer",
        "options.style_layers": "--style-layer",
    }
)
"""The flag or argument of each field of a request whose flag has another name."""

_NO_SERVER = ("failed to connect", "errors resolving")
"""The beginnings of the messages of gRPC that say that nothing answers at the target."""

_STYLE_FIELD = re.compile(r"styles\[(?P<index>\d+)\]\.(?P<name>\w+)")
_FLAG_OF_STYLE_FIELD = MappingProxyType(
    {"picture": "STYLE", "weight": "--style-blend", "scale": "--style-scale", "mask": "--style-mask"}
)


@contextlib.contextmanager
def reported(target: str) -> Iterator[None]:
    """End the command with a message and an exit code if an `NstError` or Ctrl-C ends the body."""
    try:
        yield
    except NstError as error:
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), 1)
        if isinstance(error, QuotaExceededError) and error.retry_after is not None:
            code = NOT_SERVING
        # Notes name the frame of a sequence that the error is about.
        _fail(": ".join([*getattr(error, "__notes__", ()), _message(error, target)]), code)
    except KeyboardInterrupt:
        _fail("interrupted", CANCELLED)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """End the command with a message if a file cannot be written in the body."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {reason_of(error)}") from error


@contextlib.contextmanager
def writing_result(path: Path, job_id: str, target: str) -> Iterator[None]:
    """End the command if a picture cannot be written in the body, with the command that fetches it again."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {reason_of(error)}. {kept(job_id, target)}") from error


def kept(job_id: str, target: str) -> str:
    """Return where the picture of a finished job still is."""
    server = "" if target == TARGET else f"--target {shlex.quote(target)} "
    return f"The server keeps the picture of the job: nst-client {server}get {job_id} -o FILE"


def reason_of(error: Exception) -> str:
    """Return why a file cannot be read or written."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _fail(message: str, code: int) -> NoReturn:
    echo_error(f"Error: {message}")
    raise SystemExit(code)


def _message(error: NstError, target: str) -> str:
    match error:
        case InvalidRequestError() if error.violations:
            return "\n       ".join(f"{flag_of(wrong.field)}: {wrong.description}" for wrong in error.violations)
        case UnavailableError() if not error.reason:
            is_absent = error.message.startswith(_NO_SERVER)
            return f"{'no server answers at' if is_absent else 'no connection to'} {target}: {error.message}"
        case _ if error.retry_after is not None:
            return f"{error.message}; try again in {error.retry_after:g} s"
        case _:
            return error.message


def flag_of(field: str) -> str:
    """Return the flag or argument that sets a field of a request."""
    if match := _STYLE_FIELD.match(field):
        flag = _FLAG_OF_STYLE_FIELD.get(match["name"], match["name"])
        return f"{flag} {int(match['index']) + 1}"
    base = re.sub(r"\[.*", "", field)
    return _FLAG_OF_FIELD.get(base) or "--" + base.rpartition(".")[2].replace("_", "-")
