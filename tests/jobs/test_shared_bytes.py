import asyncio

import pytest
from nst_service.jobs.shared_bytes import EvictedError, SharedBytes

_HANG_SECONDS = 10


async def hold(shared: SharedBytes, size: int, owner: str, got: list[str], leave: asyncio.Event) -> None:
    async with shared.turn(size, owner):
        got.append(owner)
        await leave.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_owner_leaves_room_for_another_one():
    shared, got, leave = SharedBytes(30), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for owner in ("a", "a", "a", "a"):
            tasks.create_task(hold(shared, 10, owner, got, leave))
        await settled()
        assert got == ["a", "a"]
        tasks.create_task(hold(shared, 10, "b", got, leave))
        await settled()
        assert got == ["a", "a", "b"]
        assert shared.held == 30
        leave.set()
    assert got == ["a", "a", "b", "a", "a"]
    assert shared.held == shared.waiting == 0


async def test_the_owner_who_has_the_least_is_next():
    shared, got = SharedBytes(20), list[str]()
    first, leave = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(shared, 10, "a", got, first))
        tasks.create_task(hold(shared, 10, "b", got, leave))
        await settled()
        for owner in ("b", "b", "c"):
            tasks.create_task(hold(shared, 10, owner, got, leave))
        await settled()
        first.set()
        await settled()
        assert got == ["a", "b", "c"]
        leave.set()


async def test_one_holder_may_have_more_than_there_is():
    shared = SharedBytes(10)
    async with asyncio.timeout(_HANG_SECONDS), shared.turn(25, "a"):
        assert shared.held == 25
        with pytest.raises(TimeoutError):
            async with shared.turn(1, "b", seconds=0.01):
                pass


async def test_whoever_gives_up_waiting_holds_nothing_and_keeps_nobody_waiting():
    shared, got, leave = SharedBytes(10), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold(shared, 10, "a", got, leave))
        await settled()
        patient = tasks.create_task(hold(shared, 10, "c", got, leave))
        impatient = tasks.create_task(hold(shared, 10, "b", got, leave))
        await settled()
        # In the same turn of the event loop in which the room for it becomes free.
        leave.set()
        patient.cancel()
        await asyncio.wait_for(impatient, _HANG_SECONDS)
    assert got == ["a", "b"]
    assert shared.held == shared.waiting == 0


async def test_a_holder_that_others_wait_for_leaves_after_their_patience():
    shared = SharedBytes(10, patience=0.05)
    leaving = asyncio.create_task(hold(shared, 10, "a", [], asyncio.Event()))
    await asyncio.sleep(0.1)
    # Nobody waited for it.
    assert not leaving.done()
    async with asyncio.timeout(_HANG_SECONDS), shared.turn(10, "a"):
        with pytest.raises(EvictedError):
            await leaving
        assert shared.held == 10


async def test_a_holder_is_spared_where_its_own_owner_waits_for_it():
    shared, got, leave = SharedBytes(20, patience=0.02, spares_own=True), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(hold(shared, 10, "a", got, leave))
        tasks.create_task(hold(shared, 10, "b", got, leave))
        tasks.create_task(hold(shared, 10, "a", got, leave))
        await asyncio.sleep(0.1)
        assert got == ["a", "b"]
        assert not holding.done()
        leave.set()


async def test_a_holder_that_leaves_in_its_own_way_is_asked_once():
    shared, asked, leave = SharedBytes(10, patience=0.01), list[str](), asyncio.Event()

    async def stubborn() -> None:
        async with shared.turn(10, "a", evict=lambda: asked.append("a")):
            await leave.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stubborn())
        await settled()
        waiting = tasks.create_task(hold(shared, 10, "b", [], leave))
        await asyncio.sleep(0.1)
        assert asked == ["a"]
        assert not waiting.done()
        leave.set()


async def test_what_goes_on_with_fewer_bytes_comes_before_those_who_wait():
    shared, got, leave = SharedBytes(10), list[str](), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        async with shared.turn(10, "a"):
            tasks.create_task(hold(shared, 6, "b", got, leave))
            await settled()
        with shared.hold(5):
            await settled()
            assert got == []
        await settled()
        assert got == ["b"]
        leave.set()
