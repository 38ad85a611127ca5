"""The log of the server: its formats, its levels, and readers that do not read."""

import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable

import grpc
import pytest
from nst_service.store.errors import failures_log
from nst_service.telemetry.log_output import LogOutput, set_up_logging

from tests.reliability.raw import raw_connection

_FIELDS = {"job": "one", "owner": "ann", "queued_seconds": 1.25, "bytes": 7}
Lines = Callable[[], list[str]]


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Lines:
    def lines() -> list[str]:
        logging.getLogger().handlers[0].close()
        return capfd.readouterr().err.splitlines()

    return lines


def test_a_line_of_text_has_the_fields_behind_the_message(lines: Lines):
    set_up_logging("text", "info", "warning")
    logging.getLogger("nst_service.x").info("job ended", extra=_FIELDS)
    (line,) = lines()
    assert re.fullmatch(
        r"[\d-]+ [\d:,]+ INFO nst_service\.x: job ended job=one owner=ann queued_seconds=1\.25 bytes=7", line
    )


def test_a_line_of_json_has_the_fields_beside_the_message(lines: Lines):
    set_up_logging("json", "info", "warning")
    logging.getLogger("nst_service.x").warning("job %s ended", "one", extra=_FIELDS)
    (line,) = lines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {"level": "WARNING", "logger": "nst_service.x", "message": "job one ended"} | _FIELDS


def test_a_traceback_is_one_line_of_json(lines: Lines):
    set_up_logging("json", "info", "warning")
    try:
        raise ZeroDivisionError("no\nway")
    except ZeroDivisionError:
        logging.getLogger("nst_service.x").exception("it failed")
    (line,) = lines()
    assert "ZeroDivisionError: no\nway" in json.loads(line)["exception"]


@pytest.mark.parametrize("text", ["ann\n2026-11-28 INFO nst_service: job ended", 'a"b', "a b", "a=b", "größe", ""])
def test_the_text_of_a_client_stays_within_its_field(lines: Lines, text: str):
    set_up_logging("text", "info", "warning")
    logging.getLogger("nst_service.x").info("job ended", extra={"owner": text})
    (line,) = lines()
    assert line.endswith(f"job ended owner={json.dumps(text, ensure_ascii=False)}")


def test_other_libraries_have_a_level_of_their_own(lines: Lines):
    set_up_logging("text", "info", "warning")
    for name in ("sqlalchemy.pool", "asyncio", "nst_service.x"):
        logging.getLogger(name).info("a message of %s", name)
    assert [line.rpartition(" ")[2] for line in lines()] == ["nst_service.x"]
    set_up_logging("text", "error", "debug")
    for name in ("sqlalchemy.pool", "nst_service.x"):
        logging.getLogger(name).info("a message of %s", name)
    assert [line.rpartition(" ")[2] for line in lines()] == ["sqlalchemy.pool"]


@pytest.mark.parametrize(("level", "count"), [("info", 0), ("debug", 1)])
def test_single_failures_of_the_store_are_for_whoever_debugs(lines: Lines, level: str, count: int):
    set_up_logging("text", level, "warning")
    failures_log.error("the store failed")
    assert len(lines()) == count


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_a_header_that_is_not_utf_8_is_not_shown(lines: Lines, level: str):
    set_up_logging("text", level, "warning")
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    # gRPC decodes the headers of a call before it looks for its method.
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", {})])
    await server.start()
    try:
        async with raw_connection(port) as connection:
            stream = connection.open("/test.Service/Method", [("authorization", b"Bearer \xff secret")])
            connection.send_message(stream, b"")
            await connection.status(stream)
    finally:
        await server.stop(None)
    logging.getLogger("grpc._cython.cygrpc").error("something else")
    *told, other = lines()
    assert bool(told) == (level == "debug")
    assert all(line.endswith("a header of a call is not UTF-8") for line in told)
    assert other.endswith("something else")


def test_a_warning_of_python_has_the_format_of_the_log(lines: Lines):
    set_up_logging("json", "info", "warning")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("soon removed", DeprecationWarning, stacklevel=1)
    (line,) = lines()
    assert "soon removed" in json.loads(line)["message"]


def test_a_reader_that_does_not_read_blocks_nobody_and_learns_how_much_it_has_missed():
    reader, writer = os.pipe()
    output = LogOutput(writer, max_lines=10)
    output.setFormatter(logging.Formatter("%(message)s"))
    # More than a pipe and the queue hold: whoever logs would hang here.
    for _ in range(1000):
        output.emit(logging.LogRecord("x", logging.INFO, "", 0, "y" * 1000, None, None))
    text = b""
    dropped = 0
    while text.count(b"y" * 1000) + dropped < 1000:
        text += os.read(reader, 65536)
        dropped = sum(map(int, re.findall(rb"(\d+) lines were dropped", text)))
    assert dropped > 0
    output.close()
    os.close(reader)
    os.close(writer)


def test_the_end_of_the_process_does_not_wait_for_a_reader_that_does_not_read():
    reader, writer = os.pipe()
    output = LogOutput(writer, max_lines=10)
    for _ in range(1000):
        output.emit(logging.LogRecord("x", logging.INFO, "", 0, "y" * 1000, None, None))
    output.close()
    # The thread ends, too.
    os.close(reader)
    while output._writer.is_alive():
        time.sleep(0.01)
    os.close(writer)


def test_a_full_disk_costs_the_lines_only():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    output = LogOutput(descriptor)
    output.emit(logging.LogRecord("x", logging.INFO, "", 0, "message", None, None))
    output.close()
    assert output._dropped
    os.close(descriptor)


def test_a_message_that_cannot_be_formatted_is_named(lines: Lines):
    set_up_logging("text", "info", "warning")
    logging.getLogger("nst_service.x").info("%d jobs", "many")
    (line,) = lines()
    assert "'%d jobs'" in line
