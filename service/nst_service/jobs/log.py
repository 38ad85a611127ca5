"""The events of one job, for any number of readers of any speed."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from nst_service.jobs.events import Event, Preparing, Preview, Progress, Queued

ACCEPTED_SEQUENCE = 1
"""Of the first event of every job."""

_LATEST_WINS = (Queued, Preparing, Progress, Preview)
"""Events that the next one of their kind makes worthless."""


_Event = TypeVar("_Event", Queued, Preparing, Progress, Preview)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with its place in the log."""

    sequence: int
    """Grows from event to event."""
    event: Event


class EventLog:
    """Keeps every event that must not be lost, and the latest of each kind that may be.

    So a slow reader costs no memory and slows nobody: it misses outdated progress and nothing else. All methods belong
    to the event loop.
    """

    def __init__(self, kept: Sequence[LoggedEvent] = ()) -> None:
        """Make the log of a job; `kept` is what earlier runs have left, in order."""
        self._kept: list[LoggedEvent] = list(kept)
        self._sequence = kept[-1].sequence if kept else ACCEPTED_SEQUENCE - 1
        self._latest: dict[type, LoggedEvent] = {}
        self._closed = False
        self._error: Exception | None = None
        self._wakers: set[asyncio.Event] = set()

    @property
    def next_sequence(self) -> int:
        """That the next event will have."""
        return self._sequence + 1

    def skip_to(self, sequence: int) -> None:
        """Give the next events sequences from this one on, if theirs would be smaller."""
        self._sequence = max(self._sequence, sequence - 1)

    def append(self, event: Event) -> LoggedEvent:
        """Add an event."""
        if self._closed:
            raise ValueError("the log is closed")
        self._sequence += 1
        logged = LoggedEvent(self._sequence, event)
        if isinstance(event, _LATEST_WINS):
            self._latest[type(event)] = logged
        else:
            self._kept.append(logged)
        self._wake()
        return logged

    def latest(self, kind: type[_Event]) -> _Event | None:
        """Return the last event of a kind that outdates the one before; None where there was none."""
        logged = self._latest.get(kind)
        return None if logged is None else cast(_Event, logged.event)

    def close(self, error: Exception | None = None) -> None:
        """End the log; every reader that has read it to its end is handed the error."""
        self._closed = True
        self._error = error
        self._wake()

    async def follow(self, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events with a larger sequence than `after`, those to come included, until the log is closed.

        Raises:
            Exception: the error that the log was closed with, after its last event.
        """
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while True:
                waker.clear()
                if logged := self._next(after):
                    yield logged
                    after = logged.sequence
                elif self._closed:
                    break
                else:
                    await waker.wait()
        finally:
            self._wakers.discard(waker)
        if self._error is not None:
            raise self._error

    def _next(self, after: int) -> LoggedEvent | None:
        candidates = [logged for logged in self._latest.values() if logged.sequence > after]
        index = bisect_right(self._kept, after, key=lambda logged: logged.sequence)
        candidates += self._kept[index : index + 1]
        return min(candidates, key=lambda logged: logged.sequence, default=None)

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()
