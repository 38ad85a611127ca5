"""The events of one job, for any number of readers of any speed."""

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from nst_service.jobs.events import Event, Preparing, Preview, Progress, Queued

ACCEPTED_SEQUENCE = 1
"""Sequence of the first event of every job."""

_LATEST_WINS = (Queued, Preparing, Progress, Preview)
"""Events that the next one of their kind makes worthless."""

_TURN_SECONDS = 0.001
"""Seconds between two events that may be outdated for one reader: about ten times what one costs the event loop."""

_Event = TypeVar("_Event", Queued, Preparing, Progress, Preview)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with its place in the log."""

    sequence: int
    """Grows from event to event."""
    event: Event


class EventLog:
    """Keeps every event that must not be lost, and the latest of each kind that may be.

    So a slow reader costs no memory and slows nobody: it misses outdated progress and nothing else. Nor does a crowd
    slow anybody, whether it reads or not: the more readers there are, the more of the progress each of them misses. All
    methods belong to the event loop.
    """

    def __init__(self, kept: Sequence[LoggedEvent] = ()) -> None:
        """Make the log of a job; `kept` is what earlier runs have left, in order."""
        self._kept: list[LoggedEvent] = list(kept)
        self._sequence = kept[-1].sequence if kept else ACCEPTED_SEQUENCE - 1
        self._latest: dict[type, LoggedEvent] = {}
        self._closed = False
        self._error: Exception | None = None
        self._waiting: set[asyncio.Event] = set()
        """Set for readers that have read everything, by the next event."""
        self._resting: set[asyncio.Event] = set()
        """Set for readers that have had their share, by the next event that must not be lost."""

    @property
    def next_sequence(self) -> int:
        """The sequence that the next event will have."""
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
            _wake(self._resting)
        _wake(self._waiting)
        return logged

    def latest(self, kind: type[_Event]) -> _Event | None:
        """Return the last event of a kind that outdates the one before; None where there was none."""
        logged = self._latest.get(kind)
        return None if logged is None else cast(_Event, logged.event)

    def close(self, error: Exception | None = None) -> None:
        """End the log; every reader that has read it to its end is handed the error."""
        self._closed = True
        self._error = error
        _wake(self._resting)
        _wake(self._waiting)

    async def follow(self, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events with a larger sequence than `after`, those to come included, until the log is closed.

        Raises:
            Exception: the error that the log was closed with, after its last event.
        """
        while True:
            if logged := self._next(after):
                yield logged
                after = logged.sequence
                if isinstance(logged.event, _LATEST_WINS):
                    await self._rest(after)
            elif self._closed:
                break
            else:
                await _woken(self._waiting)
        if self._error is not None:
            raise self._error

    async def _rest(self, after: int) -> None:
        """Wait until the others who rest have had their turns, or for an event that must not be lost."""
        if not (self._closed or self._next_kept(after)):
            await _woken(self._resting, (len(self._resting) + 1) * _TURN_SECONDS)

    def _next(self, after: int) -> LoggedEvent | None:
        candidates = [logged for logged in self._latest.values() if logged.sequence > after]
        candidates += self._next_kept(after)
        return min(candidates, key=lambda logged: logged.sequence, default=None)

    def _next_kept(self, after: int) -> list[LoggedEvent]:
        index = bisect_right(self._kept, after, key=lambda logged: logged.sequence)
        return self._kept[index : index + 1]


async def _woken(sleeping: set[asyncio.Event], seconds: float = math.inf) -> None:
    """Sleep, for so many seconds at most."""
    waker = asyncio.Event()
    sleeping.add(waker)
    timer = None if seconds == math.inf else asyncio.get_running_loop().call_later(seconds, waker.set)
    try:
        await waker.wait()
    finally:
        sleeping.discard(waker)
        if timer:
            timer.cancel()


def _wake(sleeping: set[asyncio.Event]) -> None:
    for waker in sleeping:
        waker.set()
