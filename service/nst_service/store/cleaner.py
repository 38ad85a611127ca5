"""Removal of what exceeds the retention of the store."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, update

from nst_service.lifecycle import JobState
from nst_service.store.blob_uses import BlobUses
from nst_service.store.blobs import BlobFolder
from nst_service.store.database import Database
from nst_service.store.errors import StoreFullError
from nst_service.store.records import Blob, Removed, Retention, Usage
from nst_service.store.schema import BLOB_USES, BLOBS, JOBS
from nst_service.store.serving_clock import ServingClock

_ENDED: ColumnElement[bool] = JOBS.c.state.in_([state for state in JobState if state.is_terminal])


class Cleaner:
    """Removes ended jobs that are too old or take too much room, and never what a job needs that has not ended."""

    def __init__(
        self,
        database: Database,
        folder: BlobFolder,
        uses: BlobUses,
        *,
        retention: Retention,
        clock: Callable[[], float],
        serving_clock: ServingClock,
    ):
        """Make a cleaner.

        Args:
            database: has the jobs.
            folder: the folder of the blobs.
            uses: the uses of the blobs.
            retention: the limits of what is kept.
            clock: returns seconds since the UNIX epoch.
            serving_clock: tells how long the store has been served.
        """
        self._database = database
        self._folder = folder
        self._uses = uses
        self._retention = retention
        self._clock = clock
        self._serving_clock = serving_clock

    def clean(self) -> Removed:
        """Remove the jobs that exceed the retention and the files that crashes have left behind."""
        jobs = self._remove_old() + self.remove_excess()
        swept = self._uses.sweep()
        return Removed(jobs=jobs, blobs=swept.removed, unknown=swept.unknown)

    def usage(self) -> Usage:
        """Return the size of the store."""
        return Usage(used_bytes=self._total(), free_bytes=self._folder.free_bytes())

    def check_room(self, blobs: Sequence[Blob], row_bytes: int) -> None:
        """Check that a job can be added if ended jobs make room for it. This method removes nothing.

        Args:
            blobs: the blobs of the job.
            row_bytes: size of the row of the job in bytes.

        Raises:
            StoreFullError: the job cannot be added even if every ended job is removed.
        """
        size = row_bytes + sum(blob.size for blob in blobs)
        free = self._folder.free_bytes()
        if free is not None and free - size < self._retention.min_free_bytes:
            raise StoreFullError("the disk of the store is nearly full", f"{self._folder.location.name}: {free} B free")
        if self._live_bytes(blobs) + row_bytes > self._retention.max_bytes:
            raise StoreFullError("jobs that have not ended take up all the room that the store may use")

    def remove_excess(self) -> int:
        """Remove the ended jobs that were accepted first until the rest has the allowed size; return how many."""
        removed = 0
        while self._total() > self._retention.max_bytes and self._remove_first():
            removed += 1
        return removed

    def _live_bytes(self, more: Sequence[Blob]) -> int:
        """Return the size of the jobs that have not ended, and of further blobs, in bytes."""
        live = ~_ENDED
        used = select(BLOB_USES.c.sha256).join(JOBS, JOBS.c.number == BLOB_USES.c.job_number).where(live)
        with self._database.read() as connection:
            blobs = connection.execute(select(BLOBS.c.sha256, BLOBS.c.size).where(BLOBS.c.sha256.in_(used)))
            sizes = {row.sha256: row.size for row in blobs} | {blob.sha256: blob.size for blob in more}
            rows = connection.execute(select(func.coalesce(func.sum(JOBS.c.row_bytes), 0)).where(live)).scalar_one()
        return int(sum(sizes.values())) + int(rows)

    def _total(self) -> int:
        with self._database.read() as connection:
            blobs = connection.execute(select(func.coalesce(func.sum(BLOBS.c.size), 0))).scalar_one()
            rows = connection.execute(select(func.coalesce(func.sum(JOBS.c.row_bytes), 0))).scalar_one()
        return int(blobs) + int(rows)

    def _remove_old(self) -> int:
        now = self._serving_clock()
        # On a full disk a removal may still succeed.
        with contextlib.suppress(StoreFullError):
            self._serving_clock.save()
            now = self._serving_clock()
            with self._database.write(durable=False) as connection:
                connection.execute(update(JOBS).where(_ENDED, JOBS.c.served_at_end.is_(None)).values(served_at_end=now))
        # If the time of day steps forward, jobs are kept by the time that the store was served. If it steps back, they
        # are kept longer.
        seconds = self._retention.max_age_seconds
        old = (JOBS.c.finished_at < self._clock() - seconds, JOBS.c.served_at_end <= now - seconds)
        removed = 0
        while self._remove_first(*old):
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
