"""The store: every job that was accepted, where it stands, what happened to it, and its pictures."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Update, delete, select, update

from nst_service.lifecycle import JobState
from nst_service.store.blob_uses import BlobUses
from nst_service.store.blobs import BlobFolder
from nst_service.store.cleaner import Cleaner
from nst_service.store.database import Database
from nst_service.store.directory import ExclusiveDirectory, make_private
from nst_service.store.errors import (
    CorruptBlobError,
    LeaseLostError,
    RequestConflictError,
    StoreFullError,
    TransitionError,
)
from nst_service.store.failure_detector import FailureDetector
from nst_service.store.records import (
    Blob,
    BlobKind,
    Buffer,
    DisconnectPolicy,
    Lease,
    NewJob,
    Pulse,
    Removed,
    Retention,
    StoredEvent,
    StoredJob,
    Submission,
)
from nst_service.store.schema import BLOB_USES, EVENTS, JOBS, SERVERS
from nst_service.store.versions import migrate


class Store:
    """The durable side of one server. Any thread may call it; every call blocks until its transaction is over.

    Every method may raise a StoreError. One that says that the store is full, read-only or unavailable changes nothing
    of what is stored: the job goes on, and the same call may be made again later, also where nobody knows whether it
    had succeeded.
    """

    def __init__(
        self,
        database: Database,
        open_folder: Callable[[str], BlobFolder],
        *,
        retention: Retention,
        lease_seconds: float,
        directory: ExclusiveDirectory | None = None,
        clock: Callable[[], float] = time.time,
    ):
        """Bring the tables up to date and join the servers that share them; see `open`, which is simpler.

        Args:
            database: where all goes but blobs.
            open_folder: returns where blobs go; told the id of this server.
            retention: how much is kept, and how long.
            lease_seconds: without a heartbeat, after which a server counts as dead; 0 where no other one can be alive.
            directory: kept as long as the store is open.
            clock: seconds since the epoch of UNIX. Tells people when things happened, and ages; nothing else.
        """
        self._server_id = uuid.uuid4().hex
        self._database = database
        self._clock = clock
        self._directory = directory
        self._failure_detector = FailureDetector(lease_seconds)
        self._judging = threading.Lock()
        migrate(database)
        # A full disk keeps nobody from what is there, and the next heartbeat says the same.
        with contextlib.suppress(StoreFullError), database.write(durable=False) as connection:
            self._beat(connection)
        self._folder = open_folder(self._server_id)
        self._uses = BlobUses(database, self._folder)
        self._cleaner = Cleaner(database, self._folder, self._uses, retention, clock)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        database_url: str | None = None,
        blobs_url: str | None = None,
        retention: Retention,
        lease_seconds: float,
    ) -> "Store":
        """Open the store, and make it where it does not exist.

        Args:
            directory: holds the database and the blobs where no URL says otherwise.
            database_url: of PostgreSQL, for servers that share their jobs.
            blobs_url: of a folder, for fsspec; servers that share a database must share it, too.
            retention: how much is kept, and how long.
            lease_seconds: without a heartbeat, after which a server counts as dead by those that share its database.
                In a directory a server is alone, and takes over at once.

        Raises:
            ValueError: a URL cannot be used.
            StoreInUseError: another server works in the directory.
            StoreVersionError: the database was made by a later version.
            StoreError: the store cannot be used.
        """
        if not (database_url and blobs_url):
            make_private(directory)
        with contextlib.ExitStack() as undo:
            alone = None if database_url else undo.enter_context(contextlib.closing(ExclusiveDirectory(directory)))
            database = Database.of(database_url) if database_url else Database.at(directory / "nst.sqlite")
            undo.callback(database.close)
            store = cls(
                database,
                lambda server_id: BlobFolder.at(blobs_url or str(directory / "blobs"), server_id),
                retention=retention,
                lease_seconds=0 if alone else lease_seconds,
                directory=alone,
            )
            undo.pop_all()
        return store

    def close(self) -> None:
        """Hand every job back that this server still runs, and leave."""
        try:
            with self._database.write() as connection:
                self._leave(connection, self._server_id)
        finally:
            self._database.close()
            if self._directory:
                self._directory.close()

    # Accepting

    def submit(self, job: NewJob) -> Submission:
        """Take a job on, or find the one that the same request has led to before.

        Returns:
            The job; once this has returned, it and its blobs survive everything that the disk survives.

        Raises:
            RequestConflictError: the owner has used the request id for another request.
            StoreFullError: there is no room for it.
        """
        same = _of_request(job.owner, job.request_id) if job.request_id else JOBS.c.id == job.id
        with self._database.read() as connection:
            if found := self._find(connection, same, job.request_digest):
                return Submission(found, created=False)
        size = sum(blob.size for blob in job.blobs)
        self._cleaner.make_room(size + len(job.accepted_event))
        self._uses.put(job.blobs)
        now = self._clock()
        values: Mapping[str, Any] = {
            "id": job.id,
            "owner": job.owner,
            "request_id": job.request_id,
            "request_digest": job.request_digest,
            "disconnect_policy": job.disconnect_policy,
            "deadline": job.deadline,
            "options": job.accepted_event,
            "state": JobState.QUEUED,
            "epoch": 0,
            "lost_runs": 0,
            "cancel_requested": False,
            "created_at": now,
            "updated_at": now,
            "row_bytes": len(job.accepted_event) + _size(job.events),
            **_result_size(job.size, epoch=0),
        }
        with self._database.write() as connection:
            row = connection.execute(
                self._database.insert(JOBS).values(values).on_conflict_do_nothing().returning(*JOBS.c)
            ).one_or_none()
            if row is not None:
                self._uses.add(connection, row.number, job.blobs)
                self._add_events(connection, row.number, job.events)
                return Submission(_job(row), created=True)
            # The same request has come twice at the same time.
            found = self._find(connection, same, job.request_digest)
            assert found, "only a job can be in the way of a job"
            return Submission(found, created=False)

    def find(self, owner: str, request_id: str, request_digest: str) -> StoredJob | None:
        """Return the job that a request has led to; None where it has led to none yet.

        Raises:
            RequestConflictError: the owner has used the request id for another request.
        """
        with self._database.read() as connection:
            return self._find(connection, _of_request(owner, request_id), request_digest)

    def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job.

        One that has never run is cancelled now. For every other one it is noted: the server that runs it hears of it
        with its next heartbeat, and one that has yet to go on with it finds it in the lease, and can still deliver the
        best picture so far. A job that has ended stays as it is.

        Returns:
            Its state afterwards; None for an unknown job.
        """
        with self._database.write() as connection:
            wanted = select(JOBS.c.state, JOBS.c.epoch).where(JOBS.c.id == job_id).with_for_update()
            row = connection.execute(wanted).one_or_none()
            if row is None:
                return None
            state = JobState(row.state)
            if state is JobState.QUEUED and row.epoch == 0:
                now = self._clock()
                cancelled = self._into(JobState.CANCELLED).where(JOBS.c.id == job_id)
                connection.execute(cancelled.values(cancel_requested=True, finished_at=now))
                return JobState.CANCELLED
            if not state.is_terminal:
                connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancel_requested=True))
            return state

    # Running

    def lease(self, job_id: str) -> Lease | None:
        """Begin to run a job; None where it does not wait: nobody runs a job that another one runs."""
        return self._lease(JOBS.c.id == job_id)

    def lease_next(self) -> Lease | None:
        """Begin to run the job that waits for the longest time; None where none waits."""
        waiting = select(JOBS.c.number).where(JOBS.c.state == JobState.QUEUED).order_by(JOBS.c.number).limit(1)
        # Two servers that ask at once get two jobs, instead of one of them none.
        return self._lease(JOBS.c.number == waiting.with_for_update(skip_locked=True).scalar_subquery())

    def append(
        self,
        lease: Lease,
        events: Sequence[StoredEvent],
        *,
        size: tuple[int, int] | None = None,
        durable: bool = False,
    ) -> None:
        """Add events to the log of a job. Those that a power failure takes are the last ones, and all that came later.

        Args:
            lease: the right to do so.
            events: that come after those that are there.
            size: (width, height) of the result in pixels, where the events tell another one than before.
            durable: whether to wait until a power failure takes none of them.

        Raises:
            LeaseLostError: the job is no longer run under this lease.
        """
        with self._database.write(durable=durable) as connection:
            resized = {} if size is None else _result_size(size, lease.epoch)
            self._hold(connection, lease, row_bytes=JOBS.c.row_bytes + _size(events), **resized)
            self._add_events(connection, lease.job.number, events)

    def save_checkpoint(self, lease: Lease, *parts: Buffer) -> None:
        """Replace the checkpoint of a job, which has come further.

        Args:
            lease: the right to do so.
            parts: of the checkpoint, one after the other.

        Raises:
            LeaseLostError: the job is no longer run under this lease.
        """
        blob = Blob.hashed(BlobKind.CHECKPOINT, *parts)
        self._uses.put([blob])
        with self._database.write() as connection:
            self._hold(connection, lease, lost_runs=0)
            dropped = self._uses.drop(connection, lease.job.number, BlobKind.CHECKPOINT)
            self._uses.add(connection, lease.job.number, [blob])
        self._uses.discard(dropped)

    def release(self, lease: Lease, *, is_lost: bool = False) -> None:
        """Hand a job back into the queue, where it keeps its place.

        Args:
            lease: the right to run it, which ends with it.
            is_lost: whether this counts among `StoredJob.lost_runs`.

        Raises:
            LeaseLostError: the job is no longer run under this lease.
        """
        with self._database.write() as connection:
            released = self._into(JobState.QUEUED).where(_held_by(lease))
            released = released.values(server_id=None, lost_runs=JOBS.c.lost_runs + int(is_lost))
            if connection.execute(released).rowcount == 0:
                raise LeaseLostError(lease.job.id)

    def finish(
        self,
        lease: Lease,
        state: JobState,
        *,
        outcome: bytes,
        events: Sequence[StoredEvent] = (),
        result: Buffer | None = None,
    ) -> None:
        """End a job. Its state, its last events and its picture are stored together or not at all.

        Args:
            lease: the right to do so, which ends with it.
            state: one from which a job goes nowhere.
            outcome: how it ended, for whoever asks later.
            events: the last ones.
            result: its picture, if it has one.

        Raises:
            TransitionError: a job does not end in this state.
            LeaseLostError: the job is no longer run under this lease.
        """
        if not state.is_terminal:
            raise TransitionError(JobState.RUNNING, state)
        blobs = [] if result is None else [Blob.hashed(BlobKind.RESULT, result)]
        self._uses.put(blobs)
        number = lease.job.number
        with self._database.write() as connection:
            ended = self._into(state).where(_held_by(lease))
            values = {
                "outcome": outcome,
                "finished_at": self._clock(),
                "server_id": None,
                "row_bytes": JOBS.c.row_bytes + len(outcome) + _size(events),
            }
            if connection.execute(ended.values(values)).rowcount == 0:
                if self._has_finished(connection, lease, state):
                    return
                raise LeaseLostError(lease.job.id)
            self._add_events(connection, number, events)
            self._uses.add(connection, number, blobs)
            dropped = self._uses.drop(connection, number, BlobKind.CHECKPOINT)
        self._uses.discard(dropped)

    def heartbeat(self) -> Pulse:
        """Show that this server lives, take over the jobs of those that do not, and hear what is to be cancelled.

        To be called several times within the `lease_seconds` of the store, and once before the first job is leased: so
        a server that starts finds the jobs of the one before it. To take over is to put into the queue.
        """
        with self._database.write(durable=False) as connection:
            self._beat(connection)
            others = select(SERVERS.c.id, SERVERS.c.beats).where(SERVERS.c.id != self._server_id)
            beats = {row.id: row.beats for row in connection.execute(others)}
            ours = (JOBS.c.server_id == self._server_id, JOBS.c.cancel_requested)
            cancelled = frozenset(connection.execute(select(JOBS.c.id).where(*ours)).scalars())
        with self._judging:
            dead = self._failure_detector.suspected(beats)
        recovered = [job_id for server in dead for job_id in self._take_over(server, beats[server])]
        return Pulse(cancelled=cancelled, recovered=tuple(recovered))

    # Reading

    def job(self, job_id: str) -> StoredJob | None:
        """Return a job; None for an unknown one."""
        return self._one(JOBS.c.id == job_id)

    def job_of_request(self, owner: str, request_id: str) -> StoredJob | None:
        """Return the job that an owner's request with this id has led to; None where it has led to none."""
        return self._one(_of_request(owner, request_id))

    def queue(self) -> list[StoredJob]:
        """Return the jobs that wait, in the order of their acceptance."""
        with self._database.read() as connection:
            waiting = select(JOBS).where(JOBS.c.state == JobState.QUEUED).order_by(JOBS.c.number)
            return [_job(row) for row in connection.execute(waiting)]

    def jobs(
        self, owner: str, *, states: Collection[JobState] = (), before: int | None = None, limit: int
    ) -> list[StoredJob]:
        """Return a page of an owner's jobs, newest first.

        Args:
            owner: whose jobs.
            states: only jobs in one of these; empty for all.
            before: only jobs with a smaller number: that of the last job of the page before.
            limit: at most so many.
        """
        page = select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.number.desc()).limit(limit)
        if states:
            page = page.where(JOBS.c.state.in_(states))
        if before is not None:
            page = page.where(JOBS.c.number < before)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(page)]

    def events(self, job_id: str, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Return the events of a job with a larger sequence than `after`, in order, at most so many."""
        wanted = (
            select(EVENTS.c.sequence, EVENTS.c.data)
            .join(JOBS, JOBS.c.number == EVENTS.c.job_number)
            .where(JOBS.c.id == job_id, EVENTS.c.sequence > after)
            .order_by(EVENTS.c.sequence)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [StoredEvent(sequence=row.sequence, data=row.data) for row in connection.execute(wanted)]

    def all_events(self, jobs: Collection[StoredJob]) -> dict[str, list[StoredEvent]]:
        """Return the events of some jobs, in order, by the ids of the jobs."""
        ids = {job.number: job.id for job in jobs}
        wanted = select(EVENTS).where(EVENTS.c.job_number.in_(ids)).order_by(EVENTS.c.job_number, EVENTS.c.sequence)
        events: dict[str, list[StoredEvent]] = {job.id: [] for job in jobs}
        with self._database.read() as connection:
            for row in connection.execute(wanted):
                events[ids[row.job_number]].append(StoredEvent(sequence=row.sequence, data=row.data))
        return events

    def request(self, job_id: str) -> bytes | None:
        """Return what was asked for; None for an unknown job.

        Raises:
            CorruptBlobError: it is damaged. So it is with the other blobs below.
        """
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.REQUEST)

    def checkpoint(self, job_id: str) -> bytes | None:
        """Return the last checkpoint of a job; None where there is none."""
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.CHECKPOINT)

    def result(self, job_id: str) -> bytes | None:
        """Return the picture of a job that has ended; None where there is none."""
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.RESULT)

    def picture(self, owner: str, sha256: str) -> bytes | None:
        """Return a picture that an owner has sent or received; None where it is not there, or is not theirs."""
        pictures = BLOB_USES.c.kind.in_([BlobKind.PICTURE, BlobKind.RESULT])
        return self._blob(JOBS.c.owner == owner, BLOB_USES.c.sha256 == sha256, pictures)

    # Keeping

    def clean(self) -> Removed:
        """Remove what retention does not keep, and what crashes have left behind. To be called now and then."""
        return self._cleaner.clean()

    def _one(self, condition: ColumnElement[bool]) -> StoredJob | None:
        with self._database.read() as connection:
            row = connection.execute(select(JOBS).where(condition)).one_or_none()
            return None if row is None else _job(row)

    def _find(self, connection: Connection, same: ColumnElement[bool], request_digest: str) -> StoredJob | None:
        row = connection.execute(select(JOBS).where(same)).one_or_none()
        if row is None:
            return None
        if row.request_digest != request_digest:
            raise RequestConflictError(row.request_id or "", row.id)
        return _job(row)

    def _lease(self, condition: ColumnElement[bool]) -> Lease | None:
        with self._database.write() as connection:
            # Whoever holds a lease is among the servers, so that its death is noticed.
            self._beat(connection)
            running = self._into(JobState.RUNNING).where(condition)
            # A size that was right stays so, and one that was not does not become so.
            epochs = {"epoch": JOBS.c.epoch + 1, "size_epoch": JOBS.c.size_epoch + 1}
            leased = running.values(server_id=self._server_id, **epochs).returning(*JOBS.c)
            row = connection.execute(leased).one_or_none()
        return None if row is None else Lease(_job(row))

    def _into(self, state: JobState) -> Update:
        """Return the update that brings jobs into a state: those that can come into it, and no others."""
        from_there = JOBS.c.state.in_(state.predecessors)
        return update(JOBS).where(from_there).values(state=state, updated_at=self._clock())

    def _hold(self, connection: Connection, lease: Lease, **values: Any) -> None:
        """See that a job is run under a lease, until the transaction ends, and change its row.

        Raises:
            LeaseLostError: it is not.
        """
        held = update(JOBS).where(_held_by(lease))
        if connection.execute(held.values(updated_at=self._clock(), **values)).rowcount == 0:
            raise LeaseLostError(lease.job.id)

    def _has_finished(self, connection: Connection, lease: Lease, state: JobState) -> bool:
        """Return whether an earlier call with the same lease, whose answer was lost, has done it."""
        same = (JOBS.c.number == lease.job.number, JOBS.c.epoch == lease.epoch, JOBS.c.state == state)
        return connection.execute(select(JOBS.c.number).where(*same)).one_or_none() is not None

    def _add_events(self, connection: Connection, number: int, events: Sequence[StoredEvent]) -> None:
        if events:
            rows = [{"job_number": number, "sequence": event.sequence, "data": event.data} for event in events]
            # Those that are there were stored by an earlier call whose answer was lost.
            connection.execute(self._database.insert(EVENTS).on_conflict_do_nothing(), rows)

    def _blob(self, *conditions: ColumnElement[bool]) -> bytes | None:
        wanted = select(BLOB_USES.c.sha256).join(JOBS, JOBS.c.number == BLOB_USES.c.job_number).where(*conditions)
        while True:
            with self._database.read() as connection:
                sha256 = connection.execute(wanted.limit(1)).scalar()
            if sha256 is None:
                return None
            try:
                return self._folder.get(sha256)
            except CorruptBlobError:
                # It may have been replaced or removed between the two.
                with self._database.read() as connection:
                    if sha256 in connection.execute(wanted).scalars():
                        raise

    def _beat(self, connection: Connection) -> None:
        row = self._database.insert(SERVERS).values(id=self._server_id, beats=1)
        more = {"beats": SERVERS.c.beats + 1}
        connection.execute(row.on_conflict_do_update(index_elements=["id"], set_=more))

    def _take_over(self, server_id: str, beats: int) -> list[str]:
        """Put the jobs of a dead server into the queue, unless it lives after all or somebody else has done so."""
        with self._database.write() as connection:
            row = select(SERVERS.c.beats).where(SERVERS.c.id == server_id).with_for_update()
            if connection.execute(row).scalar() != beats:
                return []
            return self._leave(connection, server_id, lost_runs=JOBS.c.lost_runs + 1)

    def _leave(self, connection: Connection, server_id: str, **values: Any) -> list[str]:
        """Put the jobs of a server into the queue, strike it off, and return their ids."""
        left = self._into(JobState.QUEUED).where(JOBS.c.server_id == server_id)
        ids = connection.execute(left.values(server_id=None, **values).returning(JOBS.c.id)).scalars().all()
        connection.execute(delete(SERVERS).where(SERVERS.c.id == server_id))
        return list(ids)


def _of_request(owner: str, request_id: str) -> ColumnElement[bool]:
    return (JOBS.c.owner == owner) & (JOBS.c.request_id == request_id)


def _held_by(lease: Lease) -> ColumnElement[bool]:
    # Every lease of a job has an epoch of its own; who holds an older one is kept out.
    return (JOBS.c.number == lease.job.number) & (JOBS.c.epoch == lease.epoch) & (JOBS.c.state == JobState.RUNNING)


def _size(events: Sequence[StoredEvent]) -> int:
    return sum(len(event.data) for event in events)


def _result_size(size: tuple[int, int], epoch: int) -> dict[str, int]:
    """Return the columns that hold the size of a result, which an epoch of the job has told."""
    width, height = size
    return {"width": width, "height": height, "size_epoch": epoch}


def _job(row: Row[Any]) -> StoredJob:
    return StoredJob(
        number=row.number,
        id=row.id,
        owner=row.owner,
        request_id=row.request_id,
        request_digest=row.request_digest,
        disconnect_policy=DisconnectPolicy(row.disconnect_policy),
        deadline=row.deadline,
        accepted_event=row.options,
        size=(row.width, row.height) if row.size_epoch == row.epoch else None,
        state=JobState(row.state),
        epoch=row.epoch,
        lost_runs=row.lost_runs,
        cancel_requested=row.cancel_requested,
        outcome=row.outcome,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
    )
