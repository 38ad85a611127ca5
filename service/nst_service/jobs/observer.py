"""The facts of jobs on a server, and the protocol of the observers that are notified of them.

Nothing in `jobs` knows the observers. An observer is notified on the event loop, after the fact. It decides nothing,
must not block, and cannot end or lose a job (see `guarded`).
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from nst_service.jobs.errors import JobError
from nst_service.jobs.job import End, Job, RequeueCause
from nst_service.store.errors import StoreError, StoreOutageError, failures_log
from nst_service.store.records import Usage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobAccepted:
    """A request has become a job, and the job is stored."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobRefused:
    """`Scheduler.submit` has raised an error instead of making a job.

    Estimates are not counted, nor are requests that are refused before `submit`: too large, malformed, or without an
    accepted token.
    """

    owner: str
    """Name of the owner; empty if the server does not know its callers."""
    error: Exception
    """The error that the client gets. It may be an unexpected error of the server."""


@dataclass(frozen=True, slots=True)
class JobResumed:
    """A job of an earlier process or of another server is queued here now."""

    job: Job


@dataclass(frozen=True, slots=True)
class RecoveryFailed:
    """A job of the store has failed, because it cannot go on: no run of it is to be expected any more."""

    job_id: str
    error: JobError
    """The error that is stored, and that its followers get."""


@dataclass(frozen=True, slots=True)
class JobStarted:
    """A job has begun to run on a device."""

    job: Job
    device: str
    """Name of the device: "cpu" or "cuda:0"."""


@dataclass(frozen=True, slots=True)
class JobCheckpointed:
    """A checkpoint of a job is stored."""

    job: Job
    seconds: float
    """Seconds that it took to store the checkpoint."""


@dataclass(frozen=True, slots=True)
class JobShrunk:
    """A job goes on with less memory: in smaller tiles, or at a smaller size."""

    job: Job


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job is not on this server any more."""

    job: Job
    end: End
    """The end of the job on this server. Only `Ended` is the end of the job itself; the others go on elsewhere."""


@dataclass(frozen=True, slots=True)
class JobRequeued:
    """A job has left its device and waits for another one of this server. Its followers stay."""

    job: Job
    cause: RequeueCause


@dataclass(frozen=True, slots=True)
class DeviceReady:
    """A device that was added or lost runs jobs from now on."""

    device: str
    """Name of the device."""


@dataclass(frozen=True, slots=True)
class DeviceLost:
    """A device has been lost. It is started again, and its jobs go on elsewhere or wait."""

    device: str
    """Name of the device."""
    remaining: int
    """The number of devices that still run jobs."""


@dataclass(frozen=True, slots=True)
class DeviceRemoved:
    """A device has left the server because it was asked to."""

    device: str
    """Name of the device."""


@dataclass(frozen=True, slots=True)
class DeviceFailed:
    """A device has failed. Only a new process can compute on it again."""

    device: str
    """Name of the device."""


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """An operation of the store has failed whose error no caller gets. A caller gets the error itself."""

    operation: str
    """Name of the operation, such as "save_checkpoint"."""
    error: StoreError


@dataclass(frozen=True, slots=True)
class StoreCalled:
    """An operation of the store has ended, whoever asked for it."""

    operation: str
    """Name of the operation, such as "heartbeat" or "save_checkpoint"."""
    seconds: float
    """Seconds from the call to its end, including the time until a thread was free."""
    error: StoreError | None = None
    """The error of the operation; None if it has succeeded."""


@dataclass(frozen=True, slots=True)
class StoreMeasured:
    """The size of the store is known. It is measured at the start and once a minute."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class DrainBegan:
    """The server accepts no more jobs and is about to end."""

    running: int
    """The number of jobs that run."""
    waiting: int
    """The number of jobs that wait."""
    grace: float
    """Seconds that the running jobs get to end."""


@dataclass(frozen=True, slots=True)
class DrainEnded:
    """The drain is over, and no job is on this server any more."""

    is_idle: bool
    """Whether every device is idle. Otherwise one of them still computes a step, whose outcome is lost."""


Fact = (
    JobAccepted
    | JobRefused
    | JobResumed
    | RecoveryFailed
    | JobStarted
    | JobCheckpointed
    | JobShrunk
    | JobEnded
    | JobRequeued
    | DeviceReady
    | DeviceLost
    | DeviceRemoved
    | DeviceFailed
    | StoreFailed
    | StoreCalled
    | StoreMeasured
    | DrainBegan
    | DrainEnded
)


class Observer(Protocol):
    """Is notified of the facts of jobs."""

    def notify(self, fact: Fact) -> None:
        """Handle a fact. This method must return soon, because it is called on the event loop."""


class NullObserver:
    """An observer that ignores every fact."""

    def notify(self, fact: Fact) -> None:
        """Ignore the fact."""


class Observers:
    """Passes facts on to several observers. One that fails keeps no fact from the others."""

    def __init__(self, *observers: Observer):
        self._observers = tuple(map(guarded, observers))

    def notify(self, fact: Fact) -> None:
        """Pass a fact on to each observer, in the order in which they were given."""
        for observer in self._observers:
            observer.notify(fact)


class _Guarded:
    """Passes facts on to another observer, and raises nothing."""

    def __init__(self, observer: Observer):
        self._observer = observer
        self._has_failed = False

    def notify(self, fact: Fact) -> None:
        try:
            self._observer.notify(fact)
        except Exception:
            # Only the first failure is logged, because such an observer may fail for every fact.
            if not self._has_failed:
                _log.exception("an observer failed on %s; later failures of it are not logged", type(fact).__name__)
            self._has_failed = True


def guarded(observer: Observer) -> Observer:
    """Return an observer that passes facts on to another one, and raises nothing."""
    return _Guarded(observer)


def log_store_failure(log: logging.Logger, level: int, message: str, error: StoreError) -> None:
    """Log that something could not be done because of the store.

    An outage of the store has one such message for each attempt. They go to a logger of their own, so that whoever sets
    up the log can leave them out.

    Args:
        log: the logger of the messages that are not of an outage.
        level: level of the message.
        message: what could not be done.
        error: the reason.
    """
    is_outage = isinstance(error, StoreOutageError)
    (failures_log if is_outage else log).log(level, "%s: %s", message, error.described())


@contextlib.contextmanager
def store_failures_noted(observer: Observer, operation: str, message: str = "the store failed") -> Iterator[None]:
    """Suppress a failure of the store, after it was logged and reported to an observer.

    Any other error is logged with its traceback and suppressed, too: it must not end the task that uses the store.

    Args:
        observer: notified of the failure.
        operation: the name of the operation of the store.
        message: the consequence of the failure, for the log.
    """
    try:
        yield
    except StoreError as error:
        log_store_failure(_log, logging.WARNING, f"{message} ({operation})", error)
        observer.notify(StoreFailed(operation, error))
    except Exception:
        _log.exception("%s (%s)", message, operation)
