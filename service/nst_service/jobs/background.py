"""Tasks in the background of an event loop, which can be waited for."""

import asyncio
from collections.abc import Coroutine


class BackgroundTasks:
    """The tasks that were spawned and are not done. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Begin to do something. The loop alone would keep no reference to it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self) -> None:
        """Cancel every task."""
        for task in self._tasks:
            task.cancel()

    async def done(self) -> None:
        """Wait until no task is left, those included that are spawned meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)
