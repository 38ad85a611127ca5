"""Background tasks of an event loop, which can be waited for."""

import asyncio
from collections.abc import Coroutine


class BackgroundTasks:
    """A set of running tasks. It belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Start a task, and keep the reference to it that the event loop does not keep."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel every task."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no task is left, including tasks that start meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
