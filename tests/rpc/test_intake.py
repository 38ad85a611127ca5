import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from nst_service.jobs.errors import QueueFullError
from nst_service.jobs.queue_limits import PendingBytes
from nst_service.rpc.errors import IncompleteRequestError, MalformedRequestError, TooManyCallsError
from nst_service.rpc.intake import Intake, IntakeLimits, OpenCalls, caller_of


def call(peer: str = "unix:", message: object = grpc.aio.EOF) -> Any:
    async def read() -> object:
        return await message if asyncio.iscoroutine(message) else message

    return SimpleNamespace(peer=lambda: peer, read=read)


def make_intake(seconds: float = 10.0, pending: int = 10 * 2**20) -> Intake:
    limits = IntakeLimits(max_request_bytes=2**20, message_seconds=seconds, max_calls=8, max_health_watches=2)
    return Intake(PendingBytes(pending), limits)


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:192.0.2.7:5000", "192.0.2.7"),
        ("ipv6:[::ffff:192.0.2.7]:5000", "192.0.2.7"),
        ("ipv6:%5B2001:db8::7%5D:5000", "2001:db8::/64"),
        ("ipv6:[2001:db8::8]:5000", "2001:db8::/64"),
        ("ipv6:[fe80::1%25eth0]:5000", "fe80::/64"),
        ("unix:", "unix"),
    ],
)
def test_calls_without_an_owner_take_turns_by_host(peer: str, caller: str):
    assert caller_of("", call(peer)) == caller
    assert caller_of("owner", call(peer)) == "owner"


def test_one_caller_cannot_have_all_calls():
    calls = OpenCalls(8)
    opened = [calls.open("a") for _ in range(7)]
    for each in opened:
        each.__enter__()
    with pytest.raises(TooManyCallsError), calls.open("a"):
        pass
    with calls.open("b"):
        with pytest.raises(TooManyCallsError), calls.open("c"):
            pass
        opened[0].__exit__(None, None, None)
        with calls.open("c"):
            pass


async def test_a_request_is_read_with_room_for_the_largest_one():
    intake = make_intake(pending=2**20)
    first, leave = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        first.set()
        await leave.wait()
        return b"first"

    reading = asyncio.create_task(intake.read(call(message=slow()), "a", has_pictures=True))
    await first.wait()
    second = asyncio.create_task(intake.read(call(message=b"second"), "b", has_pictures=True))
    await asyncio.sleep(0.01)
    assert not second.done()
    # Methods without pictures have room of their own.
    assert await intake.read(call(message=b"small"), "b", has_pictures=False) == b"small"
    leave.set()
    assert (await reading, await second) == (b"first", b"second")


async def test_a_request_that_gets_no_room_in_time_is_told_to_come_back():
    intake = make_intake(seconds=0.05, pending=2**20)
    with intake._pictures.hold(2**20), pytest.raises(QueueFullError):
        await intake.read(call(message=b"request"), "a", has_pictures=True)


async def test_a_request_that_does_not_arrive_in_time_is_incomplete():
    with pytest.raises(IncompleteRequestError, match=r"within 0\.05 s"):
        await make_intake(seconds=0.05).read(call(message=asyncio.sleep(60)), "a", has_pictures=True)


async def test_a_call_without_a_request_is_malformed():
    with pytest.raises(MalformedRequestError):
        await make_intake().read(call(), "a", has_pictures=False)
