import asyncio

import pytest
from nst_service.jobs.background import BackgroundTasks


async def test_waiting_includes_tasks_that_start_meanwhile():
    tasks, done = BackgroundTasks(), list[str]()

    async def second() -> None:
        await asyncio.sleep(0)
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        tasks.spawn(second())
        done.append("first")

    tasks.spawn(first())
    await tasks.wait()
    assert done == ["first", "second"]


async def test_tasks_start_in_the_order_in_which_they_are_spawned():
    tasks, order = BackgroundTasks(), list[int]()

    async def note(number: int) -> None:
        order.append(number)

    for number in range(5):
        tasks.spawn(note(number))
    await tasks.wait()
    assert order == [0, 1, 2, 3, 4]


async def test_a_cancelled_task_has_ended_when_the_wait_is_over():
    tasks, ended = BackgroundTasks(), list[bool]()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    tasks.spawn(endless())
    await asyncio.sleep(0)
    tasks.cancel()
    await tasks.wait()
    assert ended == [True]


async def test_a_task_that_fails_does_not_keep_others_from_their_ends():
    tasks, done = BackgroundTasks(), list[bool]()

    async def fail() -> None:
        raise ZeroDivisionError

    async def succeed() -> None:
        await asyncio.sleep(0)
        done.append(True)

    tasks.spawn(fail())
    tasks.spawn(succeed())
    await tasks.wait()
    assert done == [True]


async def test_a_task_that_repeats_survives_every_error_and_says_so(caplog: pytest.LogCaptureFixture):
    tasks, calls = BackgroundTasks(), list[int]()

    async def fail() -> None:
        calls.append(len(calls))
        raise ZeroDivisionError

    tasks.repeat(fail, 0.0)
    async with asyncio.timeout(60):
        while len(calls) < 3:
            await asyncio.sleep(0)
    tasks.cancel()
    await tasks.wait()
    assert "ZeroDivisionError" in caplog.text


async def test_the_error_of_a_task_is_logged(caplog: pytest.LogCaptureFixture):
    async def fail() -> None:
        raise ZeroDivisionError

    tasks = BackgroundTasks()
    tasks.spawn(fail())
    await tasks.wait()
    await asyncio.sleep(0)
    assert "ZeroDivisionError" in caplog.text
