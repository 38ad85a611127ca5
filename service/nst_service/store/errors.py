"""The errors of the store. Their messages are for clients and name no paths, addresses or statements."""

import logging

from nst_service.store.location import Location

failures_log = logging.getLogger("nst_service.store.failures_of_operations")
"""The logger of every operation that fails because the store is away: as many messages as there are attempts."""


class StoreError(Exception):
    """The base class of the errors that the store raises."""

    def __init__(self, message: str, detail: str = ""):
        super().__init__(message)
        self.detail = detail
        """The place of the store and the reason of the system, without passwords. It is for the operator only."""

    def described(self) -> str:
        """Return the message with its detail, for logs and for the command line of the server."""
        return f"{self}: {self.detail}" if self.detail else str(self)


class StoreOutageError(StoreError):
    """The store as a whole cannot do its work. A later attempt may succeed, without a change of the request."""


class StoreUnavailableError(StoreOutageError):
    """The database or the folder of the blobs does not answer; a later attempt may succeed."""


class StoreFullError(StoreOutageError):
    """There is no room for new jobs; stored jobs can still be read."""


class StoreReadOnlyError(StoreOutageError):
    """The store cannot be written to, so no new job is accepted; stored jobs can still be read."""


class StoreCorruptError(StoreOutageError):
    """The database is damaged, or the file is not a database."""


class StoreInUseError(StoreError):
    """Another server uses this data directory."""

    def __init__(self, directory: str = "") -> None:
        super().__init__(
            "another server uses this data directory; servers can share jobs only through PostgreSQL", directory
        )


class ForeignFolderError(StoreOutageError):
    """The folder of the blobs belongs to another store, or its owner is unknown. Nothing in it has been changed."""

    def __init__(self, location: Location, reason: str):
        super().__init__(
            "the folder of the blobs belongs to another database",
            f"{location.name}: {reason}; restore that database, or use another folder",
        )


class StoreVersionError(StoreError):
    """A later release of nst has changed the database so that this release cannot work with it."""

    def __init__(self, required: int, known: int):
        super().__init__(
            f"a later release of nst has changed the database: it requires schema version {required}, "
            f"and this release knows versions up to {known}"
        )
        self.required = required
        """The oldest version of the schema that a program must know to work with the database."""
        self.known = known
        """The newest version that this release knows."""


class CorruptBlobError(StoreError):
    """A blob is missing or damaged."""

    def __init__(self, sha256: str):
        super().__init__(f"the blob {sha256} is damaged or missing")
        self.sha256 = sha256


class RequestConflictError(StoreError):
    """The owner has used the request id for another request."""

    def __init__(self, request_id: str, job_id: str):
        super().__init__("this request id belongs to another request")
        self.request_id = request_id
        self.job_id = job_id
        """The job of the other request."""


class UnfinishedJobsError(StoreError):
    """The owner has as many jobs that have not ended as are accepted."""

    def __init__(self, held: int, accepted: int):
        super().__init__(f"the owner has {held} jobs that have not ended, and at most {accepted} are accepted")
        self.held = held
        """The number of jobs of the owner on all servers that wait or run."""
        self.accepted = accepted
        """The largest number of them."""


class LeaseLostError(StoreError):
    """The lease has ended: its job has ended, was released, or is run by another server."""

    def __init__(self, job_id: str):
        super().__init__(f"the lease of job {job_id} has ended")
        self.job_id = job_id


class TransitionError(StoreError):
    """A job cannot change from its state into this one."""

    def __init__(self, state: str, target: str):
        super().__init__(f"a job that is {state} cannot become {target}")
