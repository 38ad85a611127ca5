"""Whose a job is, and how much its owner may ask for. Pure: who counts the jobs is the scheduler."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from nst_service.jobs.errors import Excess, NotPermittedError, QueueFullError, QuotaExceededError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much an owner may ask for, beside what the server accepts from anyone; None for no more limit than that.

    Together, the three bound the work that an owner can have the server do at once.
    """

    jobs: int | None = None
    """Jobs that wait or run at once; 0 for an owner who may look and not stylise."""
    pixels: int | None = None
    """Width times height of the result of a job."""
    iterations: int | None = None
    """Iterations of a job, over all scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom jobs belong to."""

    name: str
    """Owners are told apart by it; empty where the server does not know its callers."""
    quota: Quota = Quota()


ANYONE = Owner(name="")
"""The owner of every job of a server that does not know its callers."""


def check_jobs(owner: Owner, held: int) -> None:
    """Refuse another job of an owner who has as many as the quota allows.

    Args:
        owner: whose the job would be.
        held: the owner's jobs that wait or run already.

    Raises:
        NotPermittedError: the owner may have no job at all.
        QuotaExceededError: not until one of the owner's jobs has ended.
    """
    accepted = owner.quota.jobs
    if accepted == 0:
        raise NotPermittedError
    if accepted is not None and held >= accepted:
        raise QuotaExceededError(owner.name, [Excess("jobs", held + 1, accepted)], is_lasting=False)


def check_job(owner: Owner, *, pixels: int, iterations: int) -> None:
    """Refuse a job that is larger than the quota of its owner allows.

    Raises:
        QuotaExceededError: with everything that exceeds it.
    """
    if excesses := list(_excesses(owner.quota, pixels=pixels, iterations=iterations)):
        raise QuotaExceededError(owner.name, excesses, is_lasting=True)


def _excesses(quota: Quota, **asked: int) -> Iterator[Excess]:
    for name, amount in asked.items():
        accepted: int | None = getattr(quota, name)
        if accepted is not None and amount > accepted:
            yield Excess(name, amount, accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How much a server takes on at once, whoever asks."""

    max_queued: int
    """Jobs that may wait."""
    max_pending_bytes: int
    """Bytes of requests that may wait to be read, all together. One request is always read."""
    max_running: int
    """Jobs that may share a device."""


class PendingBytes:
    """Bounds the bytes of requests that are being read: whatever a request asks for, it is in memory until then."""

    def __init__(self, max_bytes: int, retry_after: float):
        """Make an empty account.

        Args:
            max_bytes: of all requests together. One is always read.
            retry_after: seconds after which a client may try again that found no room.
        """
        self._max_bytes = max_bytes
        self._retry_after = retry_after
        self._bytes = 0

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Count the bytes of a request for as long as it is read.

        Raises:
            QueueFullError: there is no room for it now.
        """
        if self._bytes and self._bytes + size > self._max_bytes:
            raise QueueFullError(f"requests of {self._bytes} bytes", self._retry_after)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size
