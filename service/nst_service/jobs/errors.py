"""The errors that jobs raise. Their messages are meant for the client."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

UNAVAILABLE_RETRY_SECONDS = 5.0
"""Seconds after which a client may try again that came while the server takes no jobs."""


class JobError(Exception):
    """Root of everything that jobs raise on purpose."""


class QueueFullError(JobError):
    """The queue is full, of jobs or of bytes that are to be read."""

    def __init__(self, waiting: str, retry_after: float):
        super().__init__(f"{waiting} are waiting already, which is all that may wait")
        self.retry_after = retry_after
        """Seconds after which a place may be free."""


@dataclass(frozen=True, slots=True)
class Excess:
    """One quota that was exceeded."""

    quota: str
    """Its name: "jobs", "pixels" or "iterations"."""
    asked: int
    accepted: int

    def __str__(self) -> str:
        return f"{self.asked} {self.quota} were asked for, accepted are at most {self.accepted}"


class QuotaExceededError(JobError):
    """The owner of the job may not have that much."""

    def __init__(self, owner: str, excesses: Sequence[Excess], *, is_lasting: bool):
        super().__init__("; ".join(f"quota exceeded: {excess}" for excess in excesses))
        self.owner = owner
        self.excesses = tuple(excesses)
        self.is_lasting = is_lasting
        """Whether the same request will never be accepted; otherwise it may be when a job of the owner has ended."""


class NotPermittedError(JobError):
    """The owner may have no jobs."""

    def __init__(self) -> None:
        super().__init__("this caller may not stylise: the quota of its token is no jobs at all")


class Unavailability(StrEnum):
    """Why a server takes no jobs now."""

    WARMING_UP = "WARMING_UP"
    DRAINING = "DRAINING"


class NotServingError(JobError):
    """The server takes no jobs now."""

    def __init__(self, reason: Unavailability):
        doing = "warming up" if reason is Unavailability.WARMING_UP else "shutting down"
        super().__init__(f"the server is {doing}")
        self.reason = reason
        self.retry_after = UNAVAILABLE_RETRY_SECONDS
        """Seconds after which to try again."""


class UnknownJobError(JobError):
    """No job has this id."""

    def __init__(self, job_id: str):
        super().__init__("no job has this id")
        self.job_id = job_id
        """The id that was asked for, of a job or of a request."""


class UnknownPictureError(JobError):
    """A picture that was named by its SHA-256 is not there."""

    def __init__(self, sha256: str):
        super().__init__("no picture of this caller has this sha256; send its data")
        self.sha256 = sha256


class MovedError(JobError):
    """The job is not here any more: the store tells how it goes on."""

    def __init__(self) -> None:
        super().__init__("the job goes on elsewhere")


class RecordedFailureError(JobError):
    """The job has failed, as it was kept."""

    def __init__(self, outcome: bytes):
        super().__init__("the job has failed")
        self.outcome = outcome


class DoesNotFitError(JobError):
    """The job needs more memory than its device has."""

    def __init__(self, needed: int, available: int, largest_size: int, shorter_history: tuple[int, int] | None = None):
        remedy = f"the largest image_size that fits is {largest_size}" if largest_size else "no size fits"
        if shorter_history:
            steps, less = shorter_history
            remedy += f"; with an lbfgs_history of {steps} it needs about {less / 2**20:.0f} MiB"
        super().__init__(
            f"the job needs about {needed / 2**20:.0f} MiB of memory, "
            f"{available / 2**20:.0f} MiB are available; {remedy}"
        )
        self.needed = needed
        """Bytes."""
        self.available = available
        """Bytes."""
        self.largest_size = largest_size
        """Longest edge in pixels; 0 where no size fits."""


class DeadlineTooShortError(JobError):
    """The job cannot finish by the deadline of its call."""

    def __init__(self, estimated: float, remaining: float):
        super().__init__(
            f"the job needs about {estimated:.1f} s, queue included, and its deadline leaves {remaining:.1f} s"
        )
        self.estimated = estimated
        """Seconds."""
        self.remaining = remaining
        """Seconds."""


class JobCancelledError(JobError):
    """The job was cancelled before there was a picture."""

    def __init__(self) -> None:
        super().__init__("the job was cancelled before its first iteration")


class JobFailedError(JobError):
    """The job failed through no fault of the request."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason
        """"LOSS_NOT_FINITE", "REQUEST_LOST", "KEEPS_CRASHING" or "INTERNAL"."""
