"""The errors of jobs. Their messages are meant for the client."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

UNAVAILABLE_RETRY_SECONDS = 5.0
"""Seconds after which a client may try again if the server accepts no jobs."""


class JobError(Exception):
    """The base class of the errors that jobs raise."""


class QueueFullError(JobError):
    """The queue is full, of jobs or of bytes that are to be decoded."""

    def __init__(self, waiting: str, retry_after: float):
        super().__init__(f"the queue is full: {waiting} are waiting already")
        self.retry_after = retry_after
        """Seconds after which there may be room."""


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """A quota that a request exceeds."""

    quota: str
    """Name of the quota: "jobs", "pixels" or "iterations"."""
    asked: int
    """The amount that the owner would have with this request."""
    accepted: int
    """The largest amount that the quota allows."""

    def __str__(self) -> str:
        return f"{self.asked} {self.quota} requested, at most {self.accepted} accepted"


class QuotaExceededError(JobError):
    """The request exceeds the quota of its owner."""

    def __init__(self, owner: str, violations: Sequence[QuotaViolation], *, is_lasting: bool):
        super().__init__("; ".join(f"quota exceeded: {violation}" for violation in violations))
        self.owner = owner
        self.violations = tuple(violations)
        self.is_lasting = is_lasting
        """Whether the request will never be accepted. Otherwise it may be when a job of the owner has ended."""


class NotPermittedError(JobError):
    """The quota of the owner allows no jobs."""

    def __init__(self) -> None:
        super().__init__("the token of this caller allows no jobs")


class Unavailability(StrEnum):
    """The reasons for which a server accepts no jobs."""

    WARMING_UP = "WARMING_UP"
    DRAINING = "DRAINING"


class NotServingError(JobError):
    """The server accepts no jobs now."""

    def __init__(self, reason: Unavailability):
        doing = "warming up" if reason is Unavailability.WARMING_UP else "shutting down"
        super().__init__(f"the server is {doing}")
        self.reason = reason
        self.retry_after = UNAVAILABLE_RETRY_SECONDS
        """Seconds after which the client may try again."""


class UnknownJobError(JobError):
    """No job has this id."""

    def __init__(self, job_id: str):
        super().__init__("no job has this id")
        self.job_id = job_id
        """The unknown id, of a job or of a request."""


class UnknownPictureError(JobError):
    """The owner has no picture with this SHA-256."""

    def __init__(self, sha256: str):
        super().__init__("this caller has no picture with this sha256; send its data")
        self.sha256 = sha256


class MovedError(JobError):
    """The job is not on this server any more. The store has its further events."""

    def __init__(self) -> None:
        super().__init__("the job goes on elsewhere")


class StoredFailureError(JobError):
    """The job has failed, and the store has its outcome."""

    def __init__(self, outcome: bytes):
        super().__init__("the job has failed")
        self.outcome = outcome
        """The outcome, as `Codec.failure` has serialised it."""


class DoesNotFitError(JobError):
    """The job needs more memory than its device has."""

    def __init__(
        self,
        needed: int,
        available: int,
        largest_size: int,
        shorter_history: tuple[int, int] | None = None,
        *,
        limit: str = "",
    ):
        """Describe the shortage.

        Args:
            needed: bytes that the job needs.
            available: bytes that it can have.
            largest_size: the longest edge in pixels that fits; 0 if no size fits.
            shorter_history: an lbfgs_history that needs less memory, and the bytes that the job then needs.
            limit: the name of the setting that limits the memory; empty if the device itself does.
        """
        remedy = f"the largest image_size that fits is {largest_size}" if largest_size else "no size fits"
        if shorter_history:
            steps, less = shorter_history
            remedy += f"; with an lbfgs_history of {steps} the job needs about {less / 2**20:.0f} MiB"
        super().__init__(
            f"the job needs about {needed / 2**20:.0f} MiB of memory, but "
            f"{available / 2**20:.0f} MiB are available{f' ({limit} of this server)' if limit else ''}; {remedy}"
        )
        self.needed = needed
        """Bytes that the job needs."""
        self.available = available
        """Bytes that the job can have."""
        self.largest_size = largest_size
        """The longest edge in pixels that fits; 0 if no size fits."""


class DeadlineTooShortError(JobError):
    """The job cannot finish by the deadline of its call."""

    def __init__(self, estimated: float, remaining: float):
        super().__init__(
            f"the job needs about {estimated:.1f} s including its time in the queue, "
            f"but the deadline of the call is in {remaining:.1f} s"
        )
        self.estimated = estimated
        """Seconds from now to the expected end of the job."""
        self.remaining = remaining
        """Seconds from now to the deadline."""


class JobCancelledError(JobError):
    """The job was cancelled before it had a picture."""

    def __init__(self) -> None:
        super().__init__("the job was cancelled before its first iteration")


class JobFailedError(JobError):
    """The job has failed, and the request is not the cause."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason
        """The machine-readable reason: "LOSS_NOT_FINITE", "REQUEST_LOST", "KEEPS_CRASHING" or "INTERNAL"."""
