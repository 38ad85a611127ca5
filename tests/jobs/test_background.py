import asyncio

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
