"""The log of the events of one job, for any number of readers of any speed."""

import asyncio
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from nst_service.jobs.events import (
    Accepted,
    Completed,
    Event,
    Preparing,
    Preview,
    Progress,
    Queued,
    ResultHeader,
    Started,
)

ACCEPTED_SEQUENCE = 1
"""The sequence of the first event of every job, Accepted."""

_LATEST_WINS = (Queued, Preparing, Progress, Preview)
"""The events that a later event of the same kind makes outdated."""

_TURN_SECONDS = 0.001
"""Seconds between two such events for one reader: about ten times the work of the event loop for one of them."""

_Event = TypeVar("_Event", Accepted, Queued, Started, Preparing, Progress, Preview, ResultHeader, Completed)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with its place in the log."""

    sequence: int
    """The place of the event in the log of its job; grows from event to event."""
    event: Event


class EventLog:
    """Keeps every event that must not be lost, and the latest of each kind that later ones make outdated.

    A slow reader misses outdated events only. It needs no memory and slows nobody. A large number of readers slows
    nobody either: the more readers there are, the fewer of the events that may be outdated each of them gets. All
    methods belong to the event loop.
    """

    def __init__(self, kept: Sequence[LoggedEvent] = ()) -> None:
        """Make the log of a job.

        Args:
            kept: the stored events of earlier runs, in the order of their sequences.
        """
        self._kept: list[LoggedEvent] = list(kept)
        self._sequence = kept[-1].sequence if kept else ACCEPTED_SEQUENCE - 1
        self._latest: dict[type, LoggedEvent] = {}
        self._closed = False
        self._error: Exception | None = None
        self._waiting: set[asyncio.Event] = set()
        """Wakes the readers that have read everything, at the next event."""
        self._resting: set[asyncio.Event] = set()
        """Wakes the readers that pause after an event that may be outdated, at the next one that must not be lost."""

    @property
    def next_sequence(self) -> int:
        """The sequence of the next event."""
        return self._sequence + 1

    def skip_to(self, sequence: int) -> None:
        """Give the next event at least this sequence."""
        self._sequence = max(self._sequence, sequence - 1)

    def append(self, event: Event) -> LoggedEvent:
        """Add an event and wake the readers.

        Raises:
            ValueError: the log is closed.
        """
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
        """Return the latest event of a kind; None if there was none since this process has the job."""
        if logged := self._latest.get(kind):
            return cast(_Event, logged.event)
        return next((each.event for each in reversed(self._kept) if isinstance(each.event, kind)), None)

    def latest_events(self) -> list[LoggedEvent]:
        """Return the latest event of each kind that later ones make outdated."""
        return list(self._latest.values())

    def close(self, error: Exception | None = None) -> None:
        """Close the log.

        Args:
            error: raised in each reader that has read the log to its end; None to end the readers without an error.
        """
        self._closed = True
        self._error = error
        _wake(self._resting)
        _wake(self._waiting)

    async def follow(self, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events with a larger sequence than `after`, including later ones, until the log is closed.

        Raises:
            Exception: after the last event, the error with which the log was closed.
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
        """Pause for as long as there are other readers, or until there is an event that must not be lost."""
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
    """Wait in a set of sleepers until it is woken, or until the seconds have passed."""
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
