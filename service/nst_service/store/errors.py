"""Errors of the store. Their messages name no paths, addresses or statements: those are in the error they come from."""


class StoreError(Exception):
    """Root of everything that the store raises on purpose."""


class StoreUnavailableError(StoreError):
    """The database or the place of the blobs does not answer now; trying again later may help."""


class StoreFullError(StoreError):
    """There is no room: no new job can be taken, and what is already stored stays readable."""


class StoreReadOnlyError(StoreError):
    """The store may not be written to: no new job can be taken, and what is already stored stays readable."""


class StoreCorruptError(StoreError):
    """The database is damaged, or is no database."""


class StoreInUseError(StoreError):
    """Another server works in this data directory."""

    def __init__(self) -> None:
        super().__init__("another server works in this data directory; servers share jobs through PostgreSQL only")


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
    """A blob is missing, or is not what was stored."""

    def __init__(self, sha256: str):
        super().__init__(f"the blob {sha256} is damaged or missing")
        self.sha256 = sha256


class RequestConflictError(StoreError):
    """The owner has used this request id for another request."""

    def __init__(self, request_id: str, job_id: str):
        super().__init__("this request id belongs to another request")
        self.request_id = request_id
        self.job_id = job_id
        """The job of the other request."""


class LeaseLostError(StoreError):
    """The job is no longer run under this lease: it has ended, was handed back, or is run by another server."""

    def __init__(self, job_id: str):
        super().__init__(f"the job {job_id} is no longer run under this lease")
        self.job_id = job_id


class TransitionError(StoreError):
    """A job cannot go from its state into this one."""

    def __init__(self, state: str, target: str):
        super().__init__(f"a job that is {state} cannot become {target}")
