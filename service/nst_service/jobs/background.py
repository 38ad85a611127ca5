"""Background tasks of an event loop, which are supervised and can be waited for."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

_log = logging.getLogger(__name__)


class BackgroundTasks:
    """A set of running tasks. It belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Start a task, and keep the reference to it that the event loop does not keep."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._note_end)

    def repeat(self, work: Callable[[], Awaitable[None]], pause: float) -> None:
        """Start a task that calls a function until the task is cancelled. No error of the function ends it.

        Args:
            work: the function.
            pause: seconds before each call.
        """
        self.spawn(_repeated(work, pause))

    def cancel(self) -> None:
        """Cancel every task."""
        for task in self._tasks:
            task.cancel()

    async def wait(self) -> None:
        """Wait until no task is left, including tasks that start meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("a background task has failed", exc_info=error)


async def _repeated(work: Callable[[], Awaitable[None]], pause: float) -> None:
    while True:
        await asyncio.sleep(pause)
        try:
            await work()
        except Exception:
            _log.exception("a background task has failed; it is tried again")
