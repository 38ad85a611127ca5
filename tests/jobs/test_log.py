import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from nst_service.jobs import log as log_module
from nst_service.jobs.events import Completed, Event, Preparing, Queued, Started
from nst_service.jobs.log import EventLog

_HANG_SECONDS = 60
_NEVER = 3600.0
_STARTED = Started(device="cpu", queued_seconds=0.0)


def outdated_by_the_next(number: int) -> Event:
    return Queued(position=number, eta_seconds=0.0)


def turns_take(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(log_module, "_TURN_SECONDS", seconds)


@pytest.fixture(autouse=True)
async def _no_hanging() -> AsyncIterator[None]:
    async with asyncio.timeout(_HANG_SECONDS):
        yield


async def read(log: EventLog, tell: Callable[[Event], None]) -> None:
    async for logged in log.follow():
        tell(logged.event)


async def settled() -> None:
    """Let every task do what it can do without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


async def append_five(log: EventLog) -> None:
    """Add five events that outdate each other, with time to read each."""
    for number in range(5):
        log.append(outdated_by_the_next(number))
        await settled()


async def test_a_reader_who_has_had_its_turn_is_told_of_nothing_that_the_next_event_would_outdate(monkeypatch):
    turns_take(monkeypatch, _NEVER)
    log, told = EventLog(), []
    reading = asyncio.ensure_future(read(log, told.append))
    await append_five(log)
    assert told == [outdated_by_the_next(0)]
    reading.cancel()


async def test_an_event_that_must_not_be_lost_waits_for_no_turn_and_what_came_before_it_comes_first(monkeypatch):
    turns_take(monkeypatch, _NEVER)
    log, told = EventLog(), []
    reading = asyncio.ensure_future(read(log, told.append))
    await append_five(log)
    log.append(_STARTED)
    await settled()
    assert told == [outdated_by_the_next(0), outdated_by_the_next(4), _STARTED]
    reading.cancel()


async def test_the_end_of_a_log_waits_for_no_turn(monkeypatch):
    turns_take(monkeypatch, _NEVER)
    log, told = EventLog(), []
    reading = asyncio.ensure_future(read(log, told.append))
    await append_five(log)
    log.close()
    await reading
    assert told == [outdated_by_the_next(0), outdated_by_the_next(4)]


async def test_a_crowd_of_readers_is_told_of_no_more_than_a_few(monkeypatch):
    turn, readers = 0.01, 50
    turns_take(monkeypatch, turn)
    log, told = EventLog(), []
    reading = [asyncio.ensure_future(read(log, told.append)) for _ in range(readers)]
    loop = asyncio.get_running_loop()
    started = loop.time()
    while len(told) < 3 * readers:
        log.append(outdated_by_the_next(len(told)))
        await asyncio.sleep(0)
    turns = (loop.time() - started) / turn
    # The first time, everybody was there at once.
    assert len(told) - readers <= turns + 1
    for each in reading:
        each.cancel()


async def test_readers_who_do_not_read_on_take_no_turns_from_one_who_does(monkeypatch):
    turns_take(monkeypatch, 0.05)
    log, told = EventLog(), []
    log.append(outdated_by_the_next(0))
    idle = [log.follow() for _ in range(1000)]
    for each in idle:
        await anext(each)
    reading = asyncio.ensure_future(read(log, told.append))
    while len(told) < 5:
        log.append(outdated_by_the_next(len(told)))
        await asyncio.sleep(0.01)
    reading.cancel()
    for each in idle:
        await each.aclose()


async def test_events_of_different_kinds_come_one_after_the_other_in_order(monkeypatch):
    turns_take(monkeypatch, 0.001)
    log, told = EventLog(), []
    preparing = Preparing(scale=1, scales=1, part=1, parts=2)
    for event in (outdated_by_the_next(0), preparing, outdated_by_the_next(1)):
        log.append(event)
    reading = asyncio.ensure_future(read(log, told.append))
    while len(told) < 2:
        await asyncio.sleep(0.001)
    assert told == [preparing, outdated_by_the_next(1)]
    reading.cancel()


async def test_the_latest_event_of_each_kind_can_be_found_even_after_the_end():
    log = EventLog()
    for event in (Queued(position=1, eta_seconds=0.0), _STARTED, Queued(position=0, eta_seconds=0.0)):
        log.append(event)
    log.close()
    assert log.latest(Started) is _STARTED
    assert log.latest(Queued) == Queued(position=0, eta_seconds=0.0)
    assert log.latest(Preparing) is log.latest(Completed) is None
