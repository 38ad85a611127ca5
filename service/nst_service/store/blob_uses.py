"""The uses of blobs by jobs: rows that keep a file, and the removal of files without such a row."""

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import IntegrityError

from nst_service.store.blobs import BlobFolder
from nst_service.store.database import Database
from nst_service.store.errors import StoreFullError
from nst_service.store.records import Blob, BlobKind
from nst_service.store.schema import BLOB_USES, BLOBS, SERVERS


class Swept(NamedTuple):
    """The numbers of what a sweep has found."""

    removed: int
    """The number of blobs that no job used."""
    unknown: int
    """The number of files that the database does not know and that are left alone."""


class BlobUses:
    """Keeps rows and files consistent: every blob that a row names has a file, and unused files are removed.

    A blob gets its row before its file is written, and its file is removed within the transaction that deletes the row.
    So a file without a row is not of this database, or of a later state of it than the one that was restored. Such a
    file is never removed. The removal and the use of a blob both lock its row, so that neither overtakes the other.
    """

    def __init__(self, database: Database, folder: BlobFolder):
        self._database = database
        self._folder = folder

    def put(self, blobs: Iterable[Blob]) -> None:
        """Write the files of blobs, before the transaction that adds their uses.

        Raises:
            StoreError: a file cannot be written.
        """
        blobs = sorted(blobs, key=lambda blob: blob.sha256)
        if blobs:
            # A power failure that loses a row leaves a file that is never removed, which does no harm.
            with self._database.write(durable=False) as connection:
                rows = [{"sha256": blob.sha256, "size": blob.size} for blob in blobs]
                connection.execute(self._database.insert(BLOBS).on_conflict_do_nothing(), rows)
        for blob in blobs:
            self._folder.put(blob)

    def add(self, connection: Connection, job_number: int, blobs: Sequence[Blob]) -> None:
        """Add a job's uses of blobs whose files have been written."""
        # The same order everywhere prevents deadlocks.
        for blob in sorted(blobs, key=lambda blob: blob.sha256):
            row = self._database.insert(BLOBS).values(sha256=blob.sha256, size=blob.size)
            # The update locks the row, even though it changes nothing.
            connection.execute(row.on_conflict_do_update(index_elements=["sha256"], set_={"size": blob.size}))
            use = self._database.insert(BLOB_USES).values(job_number=job_number, kind=blob.kind, sha256=blob.sha256)
            connection.execute(use.on_conflict_do_nothing())
            # From here on nobody can remove the file, but it may have been removed before.
            if not self._folder.has(blob.sha256):
                self._folder.put(blob)

    def drop(self, connection: Connection, job_number: int, kind: BlobKind | None = None) -> list[str]:
        """Delete a job's uses of its blobs, or of those of one kind.

        Returns:
            The SHA-256 of these blobs, to be discarded after the transaction.
        """
        uses = delete(BLOB_USES).where(BLOB_USES.c.job_number == job_number)
        if kind is not None:
            uses = uses.where(BLOB_USES.c.kind == kind)
        return list(connection.execute(uses.returning(BLOB_USES.c.sha256)).scalars())

    def discard(self, blobs: Iterable[str]) -> int:
        """Remove those of the given blobs that no job uses; return how many."""
        return sum(self._discard(sha256) for sha256 in blobs)

    def used(self) -> set[str]:
        """Return the SHA-256 of every blob that a job uses."""
        with self._database.read() as connection:
            return set(connection.execute(select(BLOB_USES.c.sha256)).scalars())

    def sweep(self) -> Swept:
        """Remove every unused blob and the files that crashes have left behind."""
        names = self._folder.names()
        with self._database.read() as connection:
            known = set(connection.execute(select(BLOBS.c.sha256)).scalars())
            used = set(connection.execute(select(BLOB_USES.c.sha256)).scalars())
            servers = set(connection.execute(select(SERVERS.c.id)).scalars())
        self._folder.remove_partial(servers)
        removed = 0
        for sha256 in known - used:
            # On a full disk another removal may still succeed.
            with contextlib.suppress(StoreFullError):
                removed += self._discard(sha256)
        return Swept(removed=removed, unknown=len(names - known))

    def _discard(self, sha256: str) -> bool:
        unused = ~select(BLOB_USES.c.job_number).where(BLOB_USES.c.sha256 == BLOBS.c.sha256).exists()
        try:
            # If a power failure brings the row back, it has no use, and the next sweep deletes it.
            # A removal that S3 carries out late must not overtake the next use of the blob. So the lock is kept.
            with self._database.write(durable=False, may_idle=True) as connection:
                # A file that a crash has left behind needs a row, too, which its removal and its use lock.
                row = self._database.insert(BLOBS).values(sha256=sha256, size=0)
                connection.execute(row.on_conflict_do_nothing())
                removed = connection.execute(delete(BLOBS).where(BLOBS.c.sha256 == sha256, unused)).rowcount > 0
                if removed:
                    self._folder.remove(sha256)
                return removed
        except IntegrityError:
            # A job has begun to use it since.
            return False
