"""Removal of what exceeds the retention of the store."""

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
    """Removes ended jobs that are too old or take too much room, and never what a job needs that has not ended."""

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
        """Remove the jobs that exceed the retention and the files that crashes have left behind."""
        jobs = self._remove_old() + self._remove_down_to(self._retention.max_bytes)
        return Removed(jobs=jobs, blobs=self._uses.sweep())

    def make_room(self, size: int) -> None:
        """Remove ended jobs until a number of bytes can be added.

        Raises:
            StoreFullError: the bytes cannot be added even if every ended job is removed.
        """
        free = self._folder.free_bytes()
        if free is not None and free - size < self._retention.min_free_bytes:
            raise StoreFullError("the disk of the store is nearly full")
        allowed = self._retention.max_bytes - size
        if self._total() > allowed:
            self._remove_down_to(allowed)
            if self._total() > allowed:
                raise StoreFullError("jobs that have not ended take up all the room that the store may use")

    def _total(self) -> int:
        with self._database.read() as connection:
            blobs = connection.execute(select(func.coalesce(func.sum(BLOBS.c.size), 0))).scalar_one()
            rows = connection.execute(select(func.coalesce(func.sum(JOBS.c.row_bytes), 0))).scalar_one()
        return int(blobs) + int(rows)

    def _remove_old(self) -> int:
        # After a clock has stepped back, jobs are kept longer.
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
        """Remove the ended job that was accepted first, with the blobs that no other job uses.

        Returns:
            Whether there was such a job.
        """
        with self._database.write() as connection:
            first = select(JOBS.c.number).where(_ENDED, *conditions).order_by(JOBS.c.number).limit(1)
            number = connection.execute(first.with_for_update()).scalar()
            if number is None:
                return False
            dropped = self._uses.drop(connection, number)
            connection.execute(delete(JOBS).where(JOBS.c.number == number))
        self._uses.discard(dropped)
        return True
