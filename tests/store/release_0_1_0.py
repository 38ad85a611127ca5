"""Release 0.1.0 as a database sees it: the statements that it issues, spelled out, since they will never change."""

from typing import Any

from nst_service.store.database import Database
from sqlalchemy import text

_NEWEST_VERSION = 1
"""The newest version of the schema that it knows."""

_FIND_VERSION = "SELECT schema_version.version FROM schema_version"
_SET_VERSION = "UPDATE schema_version SET version=:version"
_BEAT = """
    INSERT INTO servers (id, beats) VALUES (:server_id, 1) ON CONFLICT (id) DO UPDATE SET beats = (servers.beats + 1)
"""
_SUBMIT = """
    INSERT INTO jobs (id, owner, request_id, request_digest, disconnect_policy, deadline, options, state, epoch,
        lost_runs, cancel_requested, created_at, updated_at, row_bytes)
    VALUES (:id, 'ada', NULL, 'digest', 'cancel', NULL, :options, 'queued', 0, 0, :false, 0.0, 0.0, :row_bytes)
    ON CONFLICT DO NOTHING
    RETURNING number, id, owner, request_id, request_digest, disconnect_policy, deadline, options, state, epoch,
        lost_runs, cancel_requested, outcome, created_at, updated_at, finished_at, server_id, row_bytes
"""
_LEASE = """
    UPDATE jobs SET state='running', epoch=(jobs.epoch + 1), updated_at=0.0, server_id=:server_id
    WHERE jobs.state IN ('queued') AND jobs.id = :id
    RETURNING number, id, owner, request_id, request_digest, disconnect_policy, deadline, options, state, epoch,
        lost_runs, cancel_requested, outcome, created_at, updated_at, finished_at, server_id, row_bytes
"""
_HOLD = """
    UPDATE jobs SET updated_at=0.0, row_bytes=(jobs.row_bytes + :row_bytes)
    WHERE jobs.number = :number AND jobs.epoch = :epoch AND jobs.state = 'running'
"""
_ADD_EVENT = """
    INSERT INTO events (job_number, sequence, data) VALUES (:number, :sequence, :data) ON CONFLICT DO NOTHING
"""
_RELEASE = """
    UPDATE jobs SET state='queued', lost_runs=(jobs.lost_runs + 0), updated_at=0.0, server_id=NULL
    WHERE jobs.state IN ('running') AND jobs.number = :number AND jobs.epoch = :epoch AND jobs.state = 'running'
"""
_FINISH = """
    UPDATE jobs SET state='succeeded', outcome=:outcome, updated_at=0.0, finished_at=0.0, server_id=NULL,
        row_bytes=(jobs.row_bytes + :row_bytes)
    WHERE jobs.state IN ('running') AND jobs.number = :number AND jobs.epoch = :epoch AND jobs.state = 'running'
"""


class RefusedError(Exception):
    """The release is too old for the database."""


class Release010:
    """A server of release 0.1.0 at work on a database that exists."""

    def __init__(self, database: Database):
        """Start a server.

        Raises:
            RefusedError: the database says that this release is too old.
        """
        self._database = database
        found = self._execute(_FIND_VERSION).version
        if found > _NEWEST_VERSION:
            raise RefusedError
        self._execute(_SET_VERSION, version=_NEWEST_VERSION)
        self._execute(_BEAT, server_id="0.1.0")

    def submit(self, job_id: str, accepted_event: bytes) -> None:
        """Accept a job."""
        self._execute(_SUBMIT, id=job_id, options=accepted_event, false=False, row_bytes=len(accepted_event))

    def lease(self, job_id: str) -> Any:
        """Begin to run a job and return its row."""
        self._execute(_BEAT, server_id="0.1.0")
        return self._execute(_LEASE, id=job_id, server_id="0.1.0")

    def append(self, job: Any, data: bytes) -> None:
        """Add the first event of a run."""
        self._execute(_HOLD, number=job.number, epoch=job.epoch, row_bytes=len(data))
        self._execute(_ADD_EVENT, number=job.number, sequence=job.epoch * 2**32, data=data)

    def release(self, job: Any) -> None:
        """Hand a job back into the queue."""
        self._execute(_RELEASE, number=job.number, epoch=job.epoch)

    def finish(self, job: Any) -> None:
        """End a job."""
        self._execute(_FINISH, number=job.number, epoch=job.epoch, outcome=b"well", row_bytes=4)

    def _execute(self, statement: str, **parameters: object) -> Any:
        """Execute a statement that concerns one row; return the row, or None where the statement returns none."""
        with self._database.write() as connection:
            result = connection.execute(text(statement), parameters)
            assert result.returns_rows or result.rowcount == 1
            return result.one() if result.returns_rows else None
