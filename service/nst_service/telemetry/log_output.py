"""The log of the server: its formats, its levels, and a writer that nothing waits for."""

import json
import logging
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from nst_service.store.errors import failures_log

_OURS = "nst_service"
"""The logger above all loggers of the server."""
_LIBRARIES_WITH_LEVELS = ("sqlalchemy",)
"""The libraries that give their logger a level of its own, unless it has one."""
_GRPC = "grpc._cython.cygrpc"
"""The logger of gRPC that logs each header that it cannot decode, whole and with a traceback."""
_STDERR = 2
_MAX_LINES = 10_000
"""The largest number of lines that wait to be written. Further lines are dropped and counted."""
_CLOSING_SECONDS = 1.0
"""The longest time in seconds for which the end of the process waits until the last lines are written."""


def set_up_logging(log_format: str, level: str, library_level: str) -> "LogOutput":
    """Send the messages of every logger of this process to stderr, and return the output.

    Args:
        log_format: "text" or "json".
        level: name of the lowest level of the messages of the server.
        library_level: name of the lowest level of the messages of other libraries.
    """
    output = LogOutput(_STDERR)
    output.setFormatter(_json_formatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [output]
    for name in ("", *_LIBRARIES_WITH_LEVELS):
        logging.getLogger(name).setLevel(library_level.upper())
    logging.getLogger(_OURS).setLevel(level.upper())
    # One line tells an outage of the store (see `JobLog`). Its consequences are for whoever debugs.
    failures_log.setLevel(logging.DEBUG if level == "debug" else logging.CRITICAL)
    logging.getLogger(_GRPC).filters[:] = [_HeaderFilter(shows=level == "debug")]
    # Warnings of Python otherwise bypass the format.
    logging.captureWarnings(True)
    return output


class _HeaderFilter(logging.Filter):
    """Keeps the text of headers out of the log: a header can be a token, and a client can send as many as it likes."""

    def __init__(self, *, shows: bool):
        """Make a filter.

        Args:
            shows: whether the log says that there was such a header.
        """
        super().__init__()
        self._shows = shows

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith("Invalid encoding"):
            return True
        record.msg, record.args, record.exc_info = "a header of a call is not UTF-8", (), None
        return self._shows


class LogOutput(logging.Handler):
    """Writes lines to a file descriptor, in a thread of its own.

    Whoever logs never waits for the reader of the lines. If the reader does not read, or the disk is full, lines are
    dropped.
    """

    def __init__(self, descriptor: int, max_lines: int = _MAX_LINES):
        """Make an output.

        Args:
            descriptor: the file descriptor.
            max_lines: the largest number of lines that wait to be written.
        """
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[bytes | None] = queue.Queue(max_lines)
        self._dropped = 0
        self._writer = threading.Thread(target=self._write_lines, name="nst-log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a message over to the thread that writes it."""
        try:
            line = self.format(record)
        except Exception as error:
            line = f"a message of {record.name} cannot be formatted ({error!r}): {record.msg!r}"
        try:
            self._lines.put_nowait(line.encode(errors="backslashreplace") + b"\n")
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write the last lines, for at most about a second, and end the thread."""
        try:
            self._lines.put(None, timeout=_CLOSING_SECONDS)
        except queue.Full:
            pass
        else:
            self._writer.join(_CLOSING_SECONDS)
        super().close()

    def _write_lines(self) -> None:
        # Not with sys.stderr: at the end of the process its lock would wait for a reader that does not read.
        while (line := self._lines.get()) is not None:
            self._write(line)
            if self._dropped and self._lines.empty():
                dropped, self._dropped = self._dropped, 0
                record = logging.LogRecord(
                    __name__, logging.WARNING, "", 0, "%d lines were dropped: nobody read them", (dropped,), None
                )
                self._write(self.format(record).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._dropped += 1


class _TextFormatter(logging.Formatter):
    """Writes a message as text, and the fields of its record behind it as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 # The method of the standard library.
        message = super().formatMessage(record)
        return " ".join([message, *(f"{name}={_text(value)}" for name, value in _fields(record))])


def _fields(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    # Libraries such as Ray give records private attributes, which the JSON formatter leaves out, too.
    return ((name, value) for name, value in vars(record).items() if name not in RESERVED_ATTRS and name[0] != "_")


def _text(value: object) -> str:
    """Return a value on one line. Text with anything but plain characters is quoted: it cannot look like more lines."""
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and text and not set(text) & set(" \"='\\")
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _json_formatter() -> logging.Formatter:
    return JsonFormatter(
        "%(levelname)s %(name)s %(message)s",
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
        timestamp="time",
        json_ensure_ascii=False,
    )
