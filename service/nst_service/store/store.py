"""The store: every accepted job with its state, its events and its pictures."""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Update, delete, func, select, update
from sqlalchemy.exc import IntegrityError

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
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    TransitionError,
    UnfinishedJobsError,
)
from nst_service.store.failure_detector import FailureDetector
from nst_service.store.folder_owner import claim
from nst_service.store.records import (
    Blob,
    BlobKind,
    Buffer,
    DisconnectPolicy,
    HeartbeatReply,
    Lease,
    LiveEvent,
    NewJob,
    Removed,
    Retention,
    StoredBlob,
    StoredEvent,
    StoredJob,
    Submission,
    Usage,
)
from nst_service.store.schema import BLOB_USES, BLOBS, EVENTS, FOLLOWED, JOBS, LIVE_EVENTS, SERVERS
from nst_service.store.serving_clock import ServingClock, store_id
from nst_service.store.versions import migrate

_TAKEOVER_PATIENCE = 2.0
"""Seconds for which a heartbeat waits for what a server that has died has locked."""
_IS_UNFINISHED: ColumnElement[bool] = JOBS.c.state.in_([state for state in JobState if not state.is_terminal])
_Used = TypeVar("_Used")


class Store:
    """The durable side of one server. Any thread may call it; every call blocks until its transaction has ended.

    Every method may raise a StoreError. An error that says that the store is full, read-only or unavailable changes
    nothing that is stored: the job goes on, and the caller may repeat the call later. It may do so even if it does not
    know whether the first call has succeeded.
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
        steady_clock: Callable[[], float] = time.monotonic,
    ):
        """Bring the tables up to date and join the servers that share them; `open` is simpler.

        Args:
            database: stores everything except blobs.
            open_folder: returns the folder of the blobs; its argument is the id of this server.
            retention: the limits of what is kept.
            lease_seconds: seconds without a heartbeat after which a server counts as dead; 0 where no other server can
                be alive.
            directory: closed together with the store.
            clock: returns seconds since the UNIX epoch, for timestamps and ages.
            steady_clock: returns seconds that never go back. No job is removed sooner than by this clock.
        """
        self._server_id = uuid.uuid4().hex
        self._database = database
        self._clock = clock
        self._directory = directory
        self._failure_detector = FailureDetector(lease_seconds)
        self._detector_lock = threading.Lock()
        self._unfollowed: Set[str] = frozenset()
        """The jobs that were recorded as followed at the last heartbeat, although they were not."""
        self._unused_leases: set[str] = set()
        """The ids of the jobs that this server may hold a lease of without running them: the answer of the database to
        a lease or to a release was lost."""
        migrate(database)
        # With a full disk the stored jobs can still be read, and the next heartbeat does the same as this one.
        with contextlib.suppress(StoreFullError), database.write(durable=False) as connection:
            self._send_heartbeat(connection)
        self._folder = open_folder(self._server_id)
        self._uses = BlobUses(database, self._folder)
        self._id = store_id(database)
        claim(self._folder, self._id, self._uses.used())
        self._serving_clock = ServingClock(database, steady_clock)
        self._cleaner = Cleaner(
            database, self._folder, self._uses, retention=retention, clock=clock, serving_clock=self._serving_clock
        )

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
        """Open the store, and create it if it does not exist.

        Args:
            directory: holds the database and the blobs, unless a URL is given for them.
            database_url: the URL of a PostgreSQL database, for servers that share their jobs.
            blobs_url: the URL of a folder, as fsspec reads it; servers that share a database must share this folder.
            retention: the limits of what is kept.
            lease_seconds: seconds without a heartbeat after which the servers that share a database count one of them
                as dead. A server with a directory of its own is alone there, and takes jobs over at once.

        Raises:
            ValueError: a URL cannot be used.
            StoreInUseError: another server uses the directory.
            StoreVersionError: this release is too old for the database.
            ForeignFolderError: the folder of the blobs belongs to another database.
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
        """Release every job that this server still runs, remove the server from the database, and close it."""
        try:
            with self._database.write() as connection:
                self._remove_server(connection, self._server_id)
            with contextlib.suppress(StoreError):
                self._serving_clock.save()
        finally:
            self._database.close()
            if self._directory:
                self._directory.close()

    # Accepting

    def submit(self, job: NewJob, *, max_unfinished: int | None = None) -> Submission:
        """Store a new job, or find the job of the same request.

        A new job waits in the queue of this server, and counts as followed by a call of this server.

        Args:
            job: the new job.
            max_unfinished: the largest number of jobs of the owner on all servers that have not ended; None for no
                limit. Of several calls at once on any servers, only as many succeed as the limit allows.

        Returns:
            The job. From now on it and its blobs survive everything that the disk survives.

        Raises:
            RequestConflictError: the owner has used the request id for another request.
            UnfinishedJobsError: the owner has as many unfinished jobs already.
            StoreFullError: there is no room for the job.
        """
        same = _has_request_id(job.owner, job.request_id) if job.request_id else JOBS.c.id == job.id
        with self._database.read() as connection:
            if found := self._find(connection, same, job.request_digest):
                return Submission(found, created=False)
        self._cleaner.check_room(job.blobs, len(job.accepted_event))
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
            "row_bytes": len(job.accepted_event),
            "claimed_by": self._server_id,
            **_result_size(job.size, epoch=0),
        }
        with self._write_as_server() as connection:
            row = connection.execute(
                self._database.insert(JOBS).values(values).on_conflict_do_nothing().returning(*JOBS.c)
            ).one_or_none()
            if row is not None:
                if max_unfinished is not None:
                    self._check_unfinished(connection, job.owner, max_unfinished)
                connection.execute(self._database.insert(FOLLOWED).values(self._follower(row.number)))
                self._uses.add(connection, row.number, job.blobs)
            else:
                # The same request has arrived twice at the same time.
                found = self._find(connection, same, job.request_digest)
                assert found, "an insert conflicts only with another job"
                return Submission(found, created=False)
        # Only now, so that nothing is removed for a job that is refused. What is not removed now, a cleaning removes.
        with contextlib.suppress(StoreError):
            self._cleaner.remove_excess()
        return Submission(_job(row), created=True)

    def find(self, owner: str, request_id: str, request_digest: str) -> StoredJob | None:
        """Return the job of a request; None if the request is new.

        Raises:
            RequestConflictError: the owner has used the request id for another request.
        """
        with self._database.read() as connection:
            return self._find(connection, _has_request_id(owner, request_id), request_digest)

    def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job.

        A job that has never run is cancelled at once. For any other job that has not ended, the request to cancel is
        stored. The server that runs the job learns of it with its next heartbeat. If no server runs the job, the next
        one finds the request in its lease, and can still deliver the best picture so far.

        Returns:
            The state of the job afterwards; None for an unknown job.
        """
        with self._database.write() as connection:
            wanted = select(JOBS.c.state, JOBS.c.epoch).where(JOBS.c.id == job_id).with_for_update()
            row = connection.execute(wanted).one_or_none()
            if row is None:
                return None
            state = JobState(row.state)
            if state is JobState.QUEUED and row.epoch == 0:
                now = self._clock()
                cancelled = self._transition(JobState.CANCELLED).where(JOBS.c.id == job_id)
                served = self._serving_clock()
                ended = {"finished_at": now, "served_at_end": served, "claimed_by": None}
                connection.execute(cancelled.values(cancel_requested=True, **ended))
                return JobState.CANCELLED
            if not state.is_terminal:
                connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancel_requested=True))
            return state

    def unfinished(self, owner: str) -> frozenset[str]:
        """Return the ids of the jobs of an owner that wait or run on any server."""
        with self._database.read() as connection:
            unfinished = select(JOBS.c.id).where(JOBS.c.owner == owner, _IS_UNFINISHED)
            return frozenset(connection.execute(unfinished).scalars())

    # The queue

    def unclaimed(self) -> list[StoredJob]:
        """Return the jobs that this server may claim, in the order of their acceptance.

        These are the queued jobs that no server has claimed, and those that count as jobs of this server. The answer
        contains every job of which this server does not know because the answer of an earlier call was lost.
        """
        queued = (JOBS.c.state == JobState.QUEUED) & JOBS.c.claimed_by.is_(None)
        with self._database.read() as connection:
            jobs = select(JOBS).where(queued | self._is_ours()).order_by(JOBS.c.number)
            return [_job(row) for row in connection.execute(jobs)]

    def claim(self, job_id: str) -> bool:
        """Put a job that `unclaimed` has returned into the queue of this server; return whether it still could be.

        A job that counts as running here is queued again. The caller makes sure that it does not run.
        """
        unclaimed = (JOBS.c.state == JobState.QUEUED) & JOBS.c.claimed_by.is_(None)
        with self._write_as_server() as connection:
            ours = (JOBS.c.id == job_id, JOBS.c.server_id == self._server_id)
            connection.execute(self._released().where(*ours))
            claimed = update(JOBS).where(JOBS.c.id == job_id, unclaimed | self._is_ours())
            return connection.execute(claimed.values(claimed_by=self._server_id)).rowcount > 0

    def waiting_elsewhere(self) -> list[str]:
        """Return the ids of the jobs that wait in the queues of other servers, in the order of their acceptance."""
        waiting = (JOBS.c.state == JobState.QUEUED, JOBS.c.claimed_by != self._server_id)
        with self._database.read() as connection:
            return list(connection.execute(select(JOBS.c.id).where(*waiting).order_by(JOBS.c.number)).scalars())

    def claim_from_others(self, job_id: str) -> StoredJob | None:
        """Move a job from the queue of another server into the queue of this server.

        Returns:
            The job; None if it does not wait in the queue of another server any more.
        """
        with self._write_as_server() as connection:
            waiting = (JOBS.c.id == job_id, JOBS.c.state == JobState.QUEUED, JOBS.c.claimed_by != self._server_id)
            # A job that another server is just leasing or claiming is not worth waiting for.
            free = select(JOBS.c.number).where(*waiting).with_for_update(skip_locked=True)
            number = connection.execute(free).scalar()
            if number is None:
                return None
            claimed = update(JOBS).where(JOBS.c.number == number).values(claimed_by=self._server_id)
            return _job(connection.execute(claimed.returning(*JOBS.c)).one())

    def disclaim(self, job_id: str) -> None:
        """Remove a waiting job from the queue of this server, so that another server can claim it."""
        with self._database.write() as connection:
            ours = (JOBS.c.id == job_id, JOBS.c.state == JobState.QUEUED, JOBS.c.claimed_by == self._server_id)
            connection.execute(update(JOBS).where(*ours).values(claimed_by=None))

    # Following

    def follow(self, job_id: str) -> None:
        """Record that a call of this server follows a job that has not ended."""
        with self._write_as_server(durable=False) as connection:
            self._add_followed(connection, [job_id])

    def unfollow(self, job_id: str) -> None:
        """Record that no call of this server follows a job."""
        with self._database.write(durable=False) as connection:
            number = select(JOBS.c.number).where(JOBS.c.id == job_id).scalar_subquery()
            ours = (FOLLOWED.c.server_id == self._server_id, FOLLOWED.c.job_number == number)
            connection.execute(delete(FOLLOWED).where(*ours))

    def is_followed_elsewhere(self, job_id: str) -> bool:
        """Return whether a call of another server follows a job."""
        followed = select(FOLLOWED.c.server_id).join(JOBS, JOBS.c.number == FOLLOWED.c.job_number)
        elsewhere = followed.where(JOBS.c.id == job_id, FOLLOWED.c.server_id != self._server_id).limit(1)
        with self._database.read() as connection:
            return connection.execute(elsewhere).one_or_none() is not None

    def followed_elsewhere(self) -> frozenset[str]:
        """Return the ids of those of the jobs held here that calls of other servers follow."""
        with self._database.read() as connection:
            return self._followed_elsewhere(connection)

    # Live events

    def publish_live(self, events: Collection[LiveEvent]) -> None:
        """Replace the live events of jobs that have not ended.

        An event with a smaller sequence than the one it would replace comes from a server that has lost the job, and
        changes nothing. A power failure may lose live events.
        """
        with self._database.write(durable=False) as connection:
            jobs = select(JOBS.c.id, JOBS.c.number).where(
                JOBS.c.id.in_({each.job_id for each in events}), _IS_UNFINISHED
            )
            numbers = {row.id: row.number for row in connection.execute(jobs)}
            rows = [
                {
                    "job_number": numbers[each.job_id],
                    "kind": each.kind,
                    "sequence": each.event.sequence,
                    "data": each.event.data,
                }
                for each in events
                if each.job_id in numbers
            ]
            if not rows:
                return
            insert = self._database.insert(LIVE_EVENTS)
            newer = insert.on_conflict_do_update(
                index_elements=["job_number", "kind"],
                set_={"sequence": insert.excluded.sequence, "data": insert.excluded.data},
                where=LIVE_EVENTS.c.sequence < insert.excluded.sequence,
            )
            connection.execute(newer, rows)

    def live_events(self, job_ids: Collection[str], *kinds: str) -> list[LiveEvent]:
        """Return the live events of jobs in the order of their sequences.

        Args:
            job_ids: the ids of the jobs.
            kinds: the kinds of the events; none for all kinds.
        """
        wanted = select(JOBS.c.id, LIVE_EVENTS).join(JOBS, JOBS.c.number == LIVE_EVENTS.c.job_number)
        wanted = wanted.where(JOBS.c.id.in_(job_ids)).order_by(LIVE_EVENTS.c.sequence)
        if kinds:
            wanted = wanted.where(LIVE_EVENTS.c.kind.in_(kinds))
        with self._database.read() as connection:
            return [
                LiveEvent(job_id=row.id, kind=row.kind, event=StoredEvent(sequence=row.sequence, data=row.data))
                for row in connection.execute(wanted)
            ]

    # Running

    def lease(self, job_id: str) -> Lease | None:
        """Take the lease of a queued job; return None if the job is not queued.

        At most one server holds the lease of a job. If an earlier lease or release of this server has failed, it may
        hold the lease of the job already, and gets a new one.
        """
        try:
            lease = self._lease(job_id)
        except StoreError:
            self._unused_leases.add(job_id)
            raise
        self._unused_leases.discard(job_id)
        return lease

    def _lease(self, job_id: str) -> Lease | None:
        with self._database.write() as connection:
            # Every holder of a lease is among the servers, so that the others notice its death.
            self._send_heartbeat(connection)
            if job_id in self._unused_leases:
                connection.execute(self._released().where(JOBS.c.id == job_id, JOBS.c.server_id == self._server_id))
            running = self._transition(JobState.RUNNING).where(JOBS.c.id == job_id)
            # A size that was right stays right, and one that was not does not become so.
            epochs = {"epoch": JOBS.c.epoch + 1, "size_epoch": JOBS.c.size_epoch + 1}
            leased = running.values(server_id=self._server_id, claimed_by=self._server_id, **epochs).returning(*JOBS.c)
            row = connection.execute(leased).one_or_none()
        return None if row is None else Lease(_job(row))

    def append(
        self,
        lease: Lease,
        events: Sequence[StoredEvent],
        *,
        size: tuple[int, int] | None = None,
        durable: bool = False,
    ) -> None:
        """Add events to the log of a job.

        A power failure may lose events that are not durable, with everything that was stored after them.

        Args:
            lease: the lease of the job.
            events: the next events of the job.
            size: the new (width, height) of the result in pixels, if the events change it.
            durable: whether to wait until the events survive a power failure.

        Raises:
            LeaseLostError: the lease has ended.
        """
        with self._database.write(durable=durable) as connection:
            resized = {} if size is None else _result_size(size, lease.epoch)
            self._update_leased(connection, lease, row_bytes=JOBS.c.row_bytes + _byte_count(events), **resized)
            self._add_events(connection, lease.job.number, events)

    def save_checkpoint(self, lease: Lease, *parts: Buffer) -> None:
        """Replace the checkpoint of a job that has made progress.

        Args:
            lease: the lease of the job.
            parts: the bytes of the checkpoint, one part after the other.

        Raises:
            LeaseLostError: the lease has ended.
        """
        blob = Blob.hashed(BlobKind.CHECKPOINT, *parts)
        self._uses.put([blob])
        with self._database.write() as connection:
            self._update_leased(connection, lease, lost_runs=0)
            dropped = self._uses.drop(connection, lease.job.number, BlobKind.CHECKPOINT)
            self._uses.add(connection, lease.job.number, [blob])
        self._uses.discard(dropped)

    def release(self, lease: Lease, *, is_lost: bool = False, stays: bool = False) -> None:
        """End a lease and put its job back into the queue, where the job keeps its place.

        Args:
            lease: the lease of the job.
            is_lost: whether the run counts among `StoredJob.lost_runs`.
            stays: whether the job waits in the queue of this server. Otherwise every server may claim it.

        Raises:
            LeaseLostError: the lease has ended before.
        """
        released = self._released().where(_is_leased(lease)).values(lost_runs=JOBS.c.lost_runs + int(is_lost))
        if stays:
            released = released.values(claimed_by=self._server_id)
        try:
            with self._write_as_server() as connection:
                is_released = connection.execute(released).rowcount > 0
        except StoreError:
            self._unused_leases.add(lease.job.id)
            raise
        if not is_released:
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
        """End a job and its lease. The state, the last events and the picture are stored together or not at all.

        Args:
            lease: the lease of the job.
            state: the terminal state of the job.
            outcome: the outcome of the job, as the job layer has serialised it.
            events: the last events of the job.
            result: the finished picture, if there is one.

        Raises:
            TransitionError: the state is not terminal.
            LeaseLostError: the lease has ended before.
        """
        if not state.is_terminal:
            raise TransitionError(JobState.RUNNING, state)
        blobs = [] if result is None else [Blob.hashed(BlobKind.RESULT, result)]
        self._uses.put(blobs)
        number = lease.job.number
        with self._database.write() as connection:
            ended = self._transition(state).where(_is_leased(lease))
            values = {
                "outcome": outcome,
                "finished_at": self._clock(),
                "served_at_end": self._serving_clock(),
                "server_id": None,
                "claimed_by": None,
                "row_bytes": JOBS.c.row_bytes + len(outcome) + _byte_count(events),
            }
            if connection.execute(ended.values(values)).rowcount == 0:
                if self._has_finished(connection, lease, state):
                    return
                raise LeaseLostError(lease.job.id)
            self._add_events(connection, number, events)
            connection.execute(delete(LIVE_EVENTS).where(LIVE_EVENTS.c.job_number == number))
            self._uses.add(connection, number, blobs)
            dropped = self._uses.drop(connection, number, BlobKind.CHECKPOINT)
        self._uses.discard(dropped)

    def heartbeat(self, followed: Collection[str] = ()) -> HeartbeatReply:
        """Send a heartbeat, requeue the jobs of servers that have died, and learn what others did with our jobs.

        Call this several times within the `lease_seconds` of the store, and once before the first lease, so that a
        server that starts finds the jobs of the one before it.

        Args:
            followed: the ids of the jobs that calls of this server follow.
        """
        try:
            with self._database.write(durable=False) as connection:
                self._send_heartbeat(connection)
                self._set_followed(connection, followed)
                others = select(SERVERS.c.id, SERVERS.c.beats).where(SERVERS.c.id != self._server_id)
                heartbeats = {row.id: row.beats for row in connection.execute(others)}
                ours = select(JOBS.c.id, JOBS.c.cancel_requested).where(self._is_ours())
                cancel_requested = {row.id: row.cancel_requested for row in connection.execute(ours)}
                followed_elsewhere = self._followed_elsewhere(connection)
        except Exception:
            with self._detector_lock:
                # Others may have sent heartbeats that this server could not see.
                self._failure_detector.forget()
            raise
        with self._detector_lock:
            suspected = self._failure_detector.suspected(heartbeats)
        requeued: list[str] = []
        for server in suspected:
            # A transaction of that server may still lock its jobs. The next heartbeat tries again.
            with contextlib.suppress(StoreUnavailableError):
                requeued += self._requeue_jobs_of(server, heartbeats[server])
        return HeartbeatReply(
            cancelled=frozenset(job_id for job_id, requested in cancel_requested.items() if requested),
            requeued=tuple(requeued),
            held=frozenset(cancel_requested),
            followed_elsewhere=followed_elsewhere,
        )

    # Reading

    def job(self, job_id: str) -> StoredJob | None:
        """Return a job; None for an unknown id."""
        return self._one(JOBS.c.id == job_id)

    def job_of_request(self, owner: str, request_id: str) -> StoredJob | None:
        """Return the job of an owner's request id; None for an unknown id."""
        return self._one(_has_request_id(owner, request_id))

    def queue(self) -> list[StoredJob]:
        """Return the queued jobs in the order of their acceptance."""
        with self._database.read() as connection:
            queued = select(JOBS).where(JOBS.c.state == JobState.QUEUED).order_by(JOBS.c.number)
            return [_job(row) for row in connection.execute(queued)]

    def jobs(
        self, owner: str, *, states: Collection[JobState] = (), before: int | None = None, limit: int
    ) -> list[StoredJob]:
        """Return a page of an owner's jobs, newest first.

        Args:
            owner: the owner of the jobs.
            states: the states of the jobs; empty for all.
            before: the number of the last job of the page before; None for the first page.
            limit: the largest number of jobs to return.
        """
        page = select(JOBS).where(JOBS.c.owner == owner).order_by(JOBS.c.number.desc()).limit(limit)
        if states:
            page = page.where(JOBS.c.state.in_(states))
        if before is not None:
            page = page.where(JOBS.c.number < before)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(page)]

    def events(self, job_id: str) -> list[StoredEvent]:
        """Return the events of a job in the order of their sequences."""
        wanted = (
            select(EVENTS.c.sequence, EVENTS.c.data)
            .join(JOBS, JOBS.c.number == EVENTS.c.job_number)
            .where(JOBS.c.id == job_id)
            .order_by(EVENTS.c.sequence)
        )
        with self._database.read() as connection:
            return [StoredEvent(sequence=row.sequence, data=row.data) for row in connection.execute(wanted)]

    def history(self, job_id: str) -> tuple[StoredJob, list[StoredEvent]] | None:
        """Return a job with its events as they were at one moment; None for an unknown job."""
        # A single statement sees a single state of the database, even if a transaction ends meanwhile.
        wanted = (
            select(JOBS, EVENTS.c.sequence, EVENTS.c.data)
            .join(EVENTS, EVENTS.c.job_number == JOBS.c.number, isouter=True)
            .where(JOBS.c.id == job_id)
            .order_by(EVENTS.c.sequence)
        )
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        if not rows:
            return None
        events = [StoredEvent(sequence=row.sequence, data=row.data) for row in rows if row.sequence is not None]
        return _job(rows[0]), events

    def all_events(self, jobs: Collection[StoredJob]) -> dict[str, list[StoredEvent]]:
        """Return the events of jobs by the ids of the jobs, each log in the order of its sequences."""
        ids = {job.number: job.id for job in jobs}
        wanted = select(EVENTS).where(EVENTS.c.job_number.in_(ids)).order_by(EVENTS.c.job_number, EVENTS.c.sequence)
        events: dict[str, list[StoredEvent]] = {job.id: [] for job in jobs}
        with self._database.read() as connection:
            for row in connection.execute(wanted):
                events[ids[row.job_number]].append(StoredEvent(sequence=row.sequence, data=row.data))
        return events

    def request(self, job_id: str) -> bytes | None:
        """Return the stored document of a job's request; None for an unknown job.

        Raises:
            CorruptBlobError: the blob is damaged or missing. The methods below raise it, too.
        """
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.REQUEST)

    def checkpoint(self, job_id: str) -> bytes | None:
        """Return the checkpoint of a job; None if there is none."""
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.CHECKPOINT)

    def has_checkpoint(self, job_id: str) -> bool:
        """Return whether a job has a checkpoint, even if it is damaged."""
        wanted = select(BLOB_USES.c.sha256).join(JOBS, JOBS.c.number == BLOB_USES.c.job_number)
        wanted = wanted.where(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.CHECKPOINT).limit(1)
        with self._database.read() as connection:
            return connection.execute(wanted).scalar() is not None

    def result(self, job_id: str) -> bytes | None:
        """Return the finished picture of a job; None if there is none."""
        return self._blob(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.RESULT)

    def result_blob(self, job_id: str) -> StoredBlob | None:
        """Return the blob of the finished picture of a job, to be read by `blob_part`; None if there is none.

        Raises:
            CorruptBlobError: the blob is missing or damaged.
        """
        return self._use_blob(self._folder.checked, JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.RESULT)

    def blob_part(self, blob: StoredBlob, start: int, size: int) -> bytes:
        """Return a part of a blob.

        Raises:
            CorruptBlobError: the blob has been removed, or is damaged.
        """
        return self._folder.part(blob, start, size)

    def picture(self, owner: str, sha256: str) -> bytes | None:
        """Return a picture that an owner has sent or received; None if the owner has no such picture."""
        return self._blob(*_is_picture(owner, sha256))

    def pictures_size(self, job_id: str) -> int:
        """Return the size in bytes of all pictures of the request of a job; 0 for an unknown job."""
        pictures = select(func.coalesce(func.sum(BLOBS.c.size), 0)).join(
            BLOB_USES, BLOB_USES.c.sha256 == BLOBS.c.sha256
        )
        of_job = pictures.join(JOBS, JOBS.c.number == BLOB_USES.c.job_number)
        with self._database.read() as connection:
            return int(
                connection.execute(of_job.where(JOBS.c.id == job_id, BLOB_USES.c.kind == BlobKind.PICTURE)).scalar_one()
            )

    def picture_size(self, owner: str, sha256: str) -> int | None:
        """Return the size in bytes of a picture that an owner has sent or received; None if there is none."""
        named = select(BLOBS.c.size).join(BLOB_USES, BLOB_USES.c.sha256 == BLOBS.c.sha256)
        wanted = named.join(JOBS, JOBS.c.number == BLOB_USES.c.job_number).where(*_is_picture(owner, sha256))
        with self._database.read() as connection:
            size: int | None = connection.execute(wanted.limit(1)).scalar()
            return size

    # Cleaning

    def usage(self) -> Usage:
        """Return the size of the store."""
        return self._cleaner.usage()

    def clean(self) -> Removed:
        """Remove the jobs that exceed the retention and the files that crashes have left behind. Call it regularly."""
        # The folder may have been mounted since it was opened, or another store may have claimed it by mistake.
        claim(self._folder, self._id, self._uses.used())
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

    def _is_ours(self) -> ColumnElement[bool]:
        """Return the condition of the jobs that this server runs, or that wait in its queue."""
        is_waiting = (JOBS.c.claimed_by == self._server_id) & (JOBS.c.state == JobState.QUEUED)
        # The database has no server for a job that does not run.
        return func.coalesce(JOBS.c.server_id == self._server_id, False) | func.coalesce(is_waiting, False)

    def _check_unfinished(self, connection: Connection, owner: str, accepted: int) -> None:
        """Check that an owner has not more unfinished jobs than are accepted, with one that was just added.

        Raises:
            UnfinishedJobsError: the owner has more.
        """
        self._database.lock_owner(connection, owner)
        held = select(func.count()).where(JOBS.c.owner == owner, _IS_UNFINISHED)
        found = connection.execute(held).scalar_one()
        if found > accepted:
            raise UnfinishedJobsError(found - 1, accepted)

    def _follower(self, number: int) -> dict[str, Any]:
        return {"job_number": number, "server_id": self._server_id}

    def _followed_elsewhere(self, connection: Connection) -> frozenset[str]:
        elsewhere = select(JOBS.c.id).join(FOLLOWED, FOLLOWED.c.job_number == JOBS.c.number)
        elsewhere = elsewhere.where(self._is_ours(), FOLLOWED.c.server_id != self._server_id)
        return frozenset(connection.execute(elsewhere).scalars())

    @contextlib.contextmanager
    def _write_as_server(self, *, durable: bool = True) -> Iterator[Connection]:
        """Begin a transaction whose rows name this server.

        Unlike a heartbeat it does not lock the row of this server, so it never delays a heartbeat.

        Raises:
            StoreUnavailableError: another server has taken this one for dead meanwhile.
        """
        try:
            with self._database.write(durable=durable) as connection:
                row = self._database.insert(SERVERS).values(id=self._server_id, beats=1)
                connection.execute(row.on_conflict_do_nothing())
                yield connection
        except IntegrityError as error:
            raise StoreUnavailableError("another server has just taken this server for dead") from error

    def _set_followed(self, connection: Connection, followed: Collection[str]) -> None:
        """Correct the record of the jobs that calls of this server follow.

        A job that is not followed is removed at the second call only: it may be new, and its call may follow it since.
        """
        rows = select(JOBS.c.id, JOBS.c.number).join(FOLLOWED, FOLLOWED.c.job_number == JOBS.c.number)
        rows = rows.where(FOLLOWED.c.server_id == self._server_id)
        recorded = {row.id: row.number for row in connection.execute(rows)}
        unfollowed = recorded.keys() - followed
        gone = [recorded[job_id] for job_id in unfollowed & self._unfollowed]
        self._unfollowed = unfollowed
        if gone:
            ours = (FOLLOWED.c.server_id == self._server_id, FOLLOWED.c.job_number.in_(gone))
            connection.execute(delete(FOLLOWED).where(*ours))
        if added := [job_id for job_id in followed if job_id not in recorded]:
            self._add_followed(connection, added)

    def _add_followed(self, connection: Connection, job_ids: Sequence[str]) -> None:
        jobs = select(JOBS.c.number).where(JOBS.c.id.in_(job_ids), _IS_UNFINISHED)
        # The lock keeps the jobs from being removed before their new rows are there.
        numbers = connection.execute(jobs.with_for_update(read=True, key_share=True)).scalars().all()
        if numbers:
            rows = [self._follower(number) for number in numbers]
            connection.execute(self._database.insert(FOLLOWED).on_conflict_do_nothing(), rows)

    def _transition(self, state: JobState) -> Update:
        """Return the update that brings jobs into a state, limited to the jobs that may come into it."""
        return update(JOBS).where(JOBS.c.state.in_(state.predecessors)).values(state=state, updated_at=self._clock())

    def _released(self) -> Update:
        """Return the update that puts jobs back into the queue, limited to the jobs that run."""
        return self._transition(JobState.QUEUED).values(server_id=None, claimed_by=None)

    def _update_leased(self, connection: Connection, lease: Lease, **values: Any) -> None:
        """Change the row of a job, which keeps the lease from ending before the transaction does.

        Raises:
            LeaseLostError: the lease has ended.
        """
        leased = update(JOBS).where(_is_leased(lease))
        if connection.execute(leased.values(updated_at=self._clock(), **values)).rowcount == 0:
            raise LeaseLostError(lease.job.id)

    def _has_finished(self, connection: Connection, lease: Lease, state: JobState) -> bool:
        """Return whether an earlier call with the same lease, whose answer was lost, has ended the job."""
        same = (JOBS.c.number == lease.job.number, JOBS.c.epoch == lease.epoch, JOBS.c.state == state)
        return connection.execute(select(JOBS.c.number).where(*same)).one_or_none() is not None

    def _add_events(self, connection: Connection, number: int, events: Sequence[StoredEvent]) -> None:
        if events:
            rows = [{"job_number": number, "sequence": event.sequence, "data": event.data} for event in events]
            # An earlier call whose answer was lost may have stored some of them.
            connection.execute(self._database.insert(EVENTS).on_conflict_do_nothing(), rows)

    def _blob(self, *conditions: ColumnElement[bool]) -> bytes | None:
        return self._use_blob(self._folder.get, *conditions)

    def _use_blob(self, use: Callable[[str], _Used], *conditions: ColumnElement[bool]) -> _Used | None:
        wanted = select(BLOB_USES.c.sha256).join(JOBS, JOBS.c.number == BLOB_USES.c.job_number).where(*conditions)
        while True:
            with self._database.read() as connection:
                sha256 = connection.execute(wanted.limit(1)).scalar()
            if sha256 is None:
                return None
            try:
                return use(sha256)
            except CorruptBlobError:
                # The blob may have been replaced or removed since its name was read.
                with self._database.read() as connection:
                    if sha256 in connection.execute(wanted).scalars():
                        raise

    def _send_heartbeat(self, connection: Connection) -> None:
        row = self._database.insert(SERVERS).values(id=self._server_id, beats=1)
        more = {"beats": SERVERS.c.beats + 1}
        connection.execute(row.on_conflict_do_update(index_elements=["id"], set_=more))

    def _requeue_jobs_of(self, server_id: str, heartbeats: int) -> list[str]:
        """Requeue the jobs of a suspected server and return their ids.

        Nothing changes if the server has sent a heartbeat since, or if another server has done the same before.
        """
        with self._database.write(patience=_TAKEOVER_PATIENCE) as connection:
            row = select(SERVERS.c.beats).where(SERVERS.c.id == server_id).with_for_update()
            if connection.execute(row).scalar() != heartbeats:
                return []
            return self._remove_server(connection, server_id, lost_runs=JOBS.c.lost_runs + 1)

    def _remove_server(self, connection: Connection, server_id: str, **values: Any) -> list[str]:
        """Requeue the jobs of a server, remove the server, and return the ids of the jobs."""
        requeued = self._released().where(JOBS.c.server_id == server_id)
        ids = connection.execute(requeued.values(**values).returning(JOBS.c.id)).scalars().all()
        connection.execute(delete(SERVERS).where(SERVERS.c.id == server_id))
        return list(ids)


def _has_request_id(owner: str, request_id: str) -> ColumnElement[bool]:
    return (JOBS.c.owner == owner) & (JOBS.c.request_id == request_id)


def _is_leased(lease: Lease) -> ColumnElement[bool]:
    # Every lease of a job has an epoch of its own, which fences off the holders of older ones.
    return (JOBS.c.number == lease.job.number) & (JOBS.c.epoch == lease.epoch) & (JOBS.c.state == JobState.RUNNING)


def _is_picture(owner: str, sha256: str) -> tuple[ColumnElement[bool], ...]:
    is_picture = BLOB_USES.c.kind.in_([BlobKind.PICTURE, BlobKind.RESULT])
    return JOBS.c.owner == owner, BLOB_USES.c.sha256 == sha256, is_picture


def _byte_count(events: Sequence[StoredEvent]) -> int:
    return sum(len(event.data) for event in events)


def _result_size(size: tuple[int, int], epoch: int) -> dict[str, int]:
    """Return the columns of the size of a result that is right in an epoch of its job."""
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
