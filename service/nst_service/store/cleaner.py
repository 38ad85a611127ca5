"""Keeps the store within its bounds."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select

from nst_service.lifecycle import JobState
from nst_service.store.blob_uses import BlobUses
from nst_service.store.blobs import BlobFolder
from nst_service.store.database import Database
from nst_service.store.errors import StoreFullError
from nst_service.store.records import Removed, Retention
from nst_service.store.schema import BLOBS, JOBS

_ENDED: ColumnElement[bool] = JOBS.c.state.in_([state for state in JobState if state.is_terminal])


class Cleaner:
    """Removes ended jobs that are too old, or too many. What a job needs that has not ended is never removed."""

    def __init__(
        self,
        database: Database,
        folder: BlobFolder,
        uses: BlobUses,
        retention: Retention,
        clock: Callable[[], float],
    ):
        self._database = database
        self._folder = folder
        self._uses = uses
        self._retention = retention
        self._clock = clock

    def clean(self) -> Removed:
        """Remove what retention does not keep, and what crashes have left behind."""
        jobs = self._remove_old() + self._remove_down_to(self._retention.max_bytes)
        return Removed(jobs=jobs, blobs=self._uses.sweep())

    def make_room(self, size: int) -> None:
        """See that so many bytes may be added.

        Raises:
            StoreFullError: they may not, even with every ended job removed.
        """
        free = self._folder.free_bytes()
        if free is not None and free - size < self._retention.min_free_bytes:
            raise StoreFullError("the disk of the store is nearly full")
        allowed = self._retention.max_bytes - size
        if self._total() > allowed:
            self._remove_down_to(allowed)
            if self._total() > allowed:
                raise StoreFullError("jobs that have not ended take all the room that the store may use")

    def _total(self) -> int:
        with self._database.read() as connection:
            blobs = connection.execute(select(func.coalesce(func.sum(BLOBS.c.size), 0))).scalar_one()
            rows = connection.execute(select(func.coalesce(func.sum(JOBS.c.row_bytes), 0))).scalar_one()
        return int(blobs) + int(rows)

    def _remove_old(self) -> int:
        # A clock that has stepped back keeps jobs for longer.
        old = JOBS.c.finished_at < self._clock() - self._retention.max_age_seconds
        removed = 0
        while self._remove_first(old):
            removed += 1
        return removed

    def _remove_down_to(self, size: int) -> int:
        removed = 0
        while self._total() > size and self._remove_first():
            removed += 1
        return removed

    def _remove_first(self, *conditions: Any) -> bool:
        """Remove the ended job that was accepted first, and the blobs that it alone used."""
        with self._database.write() as connection:
            first = select(JOBS.c.number).where(_ENDED, *conditions).order_by(JOBS.c.number).limit(1)
            number = connection.execute(first.with_for_update()).scalar()
            if number is None:
                return False
            dropped = self._uses.drop(connection, number)
            connection.execute(delete(JOBS).where(JOBS.c.number == number))
        self._uses.discard(dropped)
        return True
