"""Bytes of memory that many calls share, in turns between the owners of the calls.

A call whose peer neither sends nor reads would hold its bytes for ever. It has to leave when others have waited for
it long enough.
"""

import asyncio
import contextlib
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass


class EvictedError(Exception):
    """A holder had to leave, because others waited for its bytes."""


@dataclass(eq=False)
class _Hold:
    """The bytes of one holder."""

    owner: str
    size: int
    since: float
    """Time since which it has them, on the clock of the event loop."""
    evict: Callable[[], None] | None = None
    """Makes the holder leave; None for a holder that cannot be evicted, or that is leaving."""


@dataclass(eq=False)
class _Turn:
    """The wait of a holder for its bytes."""

    owner: str
    size: int
    number: int
    """The place of the turn in the order of arrival."""
    granted: "asyncio.Future[_Hold]"


class SharedBytes:
    """Divides a number of bytes among holders. It belongs to one event loop.

    Of the owners who wait, the one who holds the fewest bytes is next. As long as there is room for two holders, one
    owner never holds everything.
    """

    def __init__(self, max_bytes: int, *, patience: float = math.inf, spares_own: bool = False):
        """Make an empty pool.

        Args:
            max_bytes: the bytes of all holders together. A single holder may have more.
            patience: seconds for which a holder can have its bytes while others wait. It is evicted then.
            spares_own: whether a holder is evicted only for an owner who holds less than its own.
        """
        self._max_bytes = max_bytes
        self._patience = patience
        self._spares_own = spares_own
        self._holds: dict[_Hold, None] = {}
        """The holders in the order in which they got their bytes."""
        self._bytes: Counter[str] = Counter()
        """The bytes of each owner."""
        self._turns: dict[str, deque[_Turn]] = {}
        self._arrivals = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held(self) -> int:
        """The bytes of all holders together."""
        return self._bytes.total()

    @property
    def waiting(self) -> int:
        """The number of holders that wait for their bytes."""
        return sum(map(len, self._turns.values()))

    def has_room(self, size: int) -> bool:
        """Return whether a holder fits now, with no regard to the turns of others."""
        return not self._holds or self.held + size <= self._max_bytes

    @contextlib.contextmanager
    def hold(self, size: int, owner: str = "") -> Iterator[None]:
        """Hold bytes until the context ends, without a turn. The holder is not evicted."""
        hold = self._add(owner, size, since=0.0)
        try:
            yield
        finally:
            self._release(hold)

    @contextlib.asynccontextmanager
    async def turn(
        self, size: int, owner: str = "", *, seconds: float | None = None, evict: Callable[[], None] | None = None
    ) -> AsyncIterator[None]:
        """Wait for the turn of an owner, and hold bytes until the context ends.

        Args:
            size: the number of bytes.
            owner: the owner, whose turn it is.
            seconds: seconds to wait at most; None to wait for as long as it takes.
            evict: makes the holder leave; None to cancel what the context awaits.

        Raises:
            TimeoutError: the turn did not come in time.
            EvictedError: the holder had to leave, and what the context awaited was cancelled.
        """
        async with asyncio.timeout(seconds):
            hold = await self._granted(owner, size)
        limit = asyncio.timeout(None)
        try:
            async with limit:
                hold.evict = evict or (lambda: limit.reschedule(hold.since))
                self._check_patience()
                yield
        except TimeoutError as error:
            if limit.expired():
                raise EvictedError from error
            raise
        finally:
            self._release(hold)

    def _add(self, owner: str, size: int, since: float) -> _Hold:
        hold = _Hold(owner, size, since)
        self._holds[hold] = None
        self._bytes[owner] += size
        return hold

    def _release(self, hold: _Hold) -> None:
        del self._holds[hold]
        self._bytes[hold.owner] -= hold.size
        if not self._bytes[hold.owner]:
            del self._bytes[hold.owner]
        if self._turns:
            # Whoever leaves may go on with fewer bytes. They come before those of the others.
            asyncio.get_running_loop().call_soon(self._dispatch)

    async def _granted(self, owner: str, size: int) -> _Hold:
        """Return the bytes of an owner when it is the turn of the owner and there is room."""
        self._arrivals += 1
        turn = _Turn(owner, size, self._arrivals, asyncio.get_running_loop().create_future())
        self._turns.setdefault(owner, deque()).append(turn)
        self._dispatch()
        try:
            return await turn.granted
        except BaseException:
            if turn.granted.done() and not turn.granted.cancelled():
                self._release(turn.granted.result())
            else:
                self._remove(turn)
                self._dispatch()
            raise

    def _remove(self, turn: _Turn) -> None:
        turns = self._turns.get(turn.owner, deque())
        if turn in turns:
            turns.remove(turn)
            if not turns:
                del self._turns[turn.owner]

    def _dispatch(self) -> None:
        while (turn := self._next()) and self.has_room(turn.size):
            self._remove(turn)
            # The call may have been cancelled since it began to wait.
            if not turn.granted.cancelled():
                turn.granted.set_result(self._add(turn.owner, turn.size, asyncio.get_running_loop().time()))
        self._check_patience()

    def _next(self) -> _Turn | None:
        """Return the first turn of the owner who holds the fewest bytes, among those who may hold more."""
        # A larger one is not overtaken by smaller ones, which could keep it waiting for ever.
        first = [turns[0] for turns in self._turns.values() if self._may_have(turns[0])]
        return min(first, key=lambda turn: (self._bytes[turn.owner], turn.number), default=None)

    def _may_have(self, turn: _Turn) -> bool:
        """Return whether an owner leaves enough for another one."""
        own = self._bytes[turn.owner]
        return not own or own + turn.size <= max(self._max_bytes - turn.size, turn.size)

    def _check_patience(self) -> None:
        """Evict the holder that has had its bytes for longest, if others have waited long enough for it."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._patience == math.inf or not self._turns:
            return
        hold = next(self._evictable(), None)
        if hold is None:
            return
        loop = asyncio.get_running_loop()
        due = hold.since + self._patience
        if due > loop.time():
            self._timer = loop.call_at(due, self._check_patience)
            return
        evict, hold.evict = hold.evict, None
        assert evict is not None
        # The release of its bytes leads to the next one.
        evict()

    def _evictable(self) -> Iterator[_Hold]:
        """Yield the holders that could leave for those who wait, the oldest first."""
        # Of the owners who wait, the one who has the least, whose turn is next.
        least = min(self._turns, key=self._bytes.__getitem__)
        for hold in self._holds:
            is_spared = self._spares_own and self._bytes[hold.owner] <= self._bytes[least]
            if hold.evict and not is_spared:
                yield hold
