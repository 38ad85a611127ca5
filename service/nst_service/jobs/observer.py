"""The seam for observation: every fact of a job's life is told here, to metrics, traces and logs that watch.

Nothing in `jobs` knows who watches. An observer hears of a fact on the event loop, after the fact: it decides nothing,
must not block, and cannot end or lose a job (see `guarded`).
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from nst_service.jobs.job import End, Job
from nst_service.store.errors import StoreError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """A request has become a job, which is in the store."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobRefused:
    """A request has not become a job."""

    owner: str
    """Name of the owner; empty where the server does not know its callers."""
    error: Exception
    """Why, in the form that the client is told."""


@dataclass(frozen=True, slots=True)
class JobResumed:
    """A job that another server, or an earlier process, had begun or queued waits here now."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A job has its device."""

    job: Job
    device: str
    """Name of the device: "cpu" or "cuda:0"."""


@dataclass(frozen=True, slots=True)
class JobCheckpointed:
    """A checkpoint of a job is in the store."""

    job: Job
    seconds: float
    """Seconds that storing it took."""


@dataclass(frozen=True, slots=True)
class JobShrunk:
    """A job goes on with less memory: in smaller tiles, or at a smaller size."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job is not on this server any more."""

    job: Job
    end: End
    """How: only `Ended` is the end of the job; `Moved` and `Drained` jobs go on."""


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """A device computes nothing any more."""

    device: str


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store could not do what was asked of it."""

    operation: str
    """Name of the operation, such as "save_checkpoint"."""
    error: StoreError


Fact = (
    JobAccepted
    | JobRefused
    | JobResumed
    | JobStarted
    | JobCheckpointed
    | JobShrunk
    | JobEnded
    | DeviceFailed
    | StoreFailed
)


class Observer(Protocol):
    """Watches jobs."""

    def notify(self, fact: Fact) -> None:
        """Take note of a fact."""


class NullObserver:
    """Watches nothing."""

    def notify(self, fact: Fact) -> None:
        """Ignore a fact."""


class _Guarded:
    """Passes facts on, and keeps what an observer raises from whoever tells them."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._has_failed = False

    def notify(self, fact: Fact) -> None:
        try:
            self._observer.notify(fact)
        except Exception:
            # Once is enough: an observer that fails once may fail for each fact.
            if not self._has_failed:
                _log.exception("an observer failed on %s; later failures of it are not logged", type(fact).__name__)
            self._has_failed = True


def guarded(observer: Observer) -> Observer:
    """Return an observer that tells another one, and never raises."""
    return _Guarded(observer)


@contextlib.contextmanager
def store_failures_noted(observer: Observer, operation: str, message: str = "the store failed") -> Iterator[None]:
    """Go on where the store fails: log the failure and tell an observer of it.

    Args:
        observer: told of the failure.
        operation: what was asked of the store.
        message: what it means, for the log.
    """
    try:
        yield
    except StoreError as error:
        _log.warning("%s (%s): %s", message, operation, error)
        observer.notify(StoreFailed(operation, error))
