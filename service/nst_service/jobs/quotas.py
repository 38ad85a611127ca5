"""The owners of jobs, and the checks of their quotas. This module is pure: `JobTable.held` counts the jobs."""

from collections.abc import Iterator
from dataclasses import dataclass

from nst_service.jobs.errors import NotPermittedError, QuotaExceededError, QuotaViolation


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits of one owner, in addition to the limits of the server. None stands for no limit.

    Together they bound the work that an owner can make the server do at once.
    """

    jobs: int | None = None
    """The number of jobs that wait or run at once. With 0 the owner can look at jobs but start none."""
    pixels: int | None = None
    """Width times height of the result of a job."""
    iterations: int | None = None
    """The number of iterations of a job over all scales."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """An owner of jobs."""

    name: str
    """Name of the owner, which is unique; empty on a server that does not know its callers."""
    quota: Quota = Quota()


ANYONE = Owner(name="")
"""The owner of every job of a server that does not know its callers."""


def check_jobs(owner: Owner, held: int) -> None:
    """Check that an owner may have another job.

    Args:
        owner: the owner of the new job.
        held: the number of jobs of the owner that wait or run already.

    Raises:
        NotPermittedError: the owner may have no jobs at all.
        QuotaExceededError: the owner may have another job only when one has ended.
    """
    accepted = owner.quota.jobs
    if accepted == 0:
        raise NotPermittedError
    if accepted is not None and held >= accepted:
        raise too_many_jobs(owner, held, accepted)


def too_many_jobs(owner: Owner, held: int, accepted: int) -> QuotaExceededError:
    """Return the error for an owner who has as many jobs as the quota accepts, or more."""
    return QuotaExceededError(owner.name, [QuotaViolation("jobs", held + 1, accepted)], is_lasting=False)


def check_job(owner: Owner, *, pixels: int, iterations: int) -> None:
    """Check that a job is not larger than the quota of its owner allows.

    Raises:
        QuotaExceededError: with every violation.
    """
    if violations := list(_violations(owner.quota, pixels=pixels, iterations=iterations)):
        raise QuotaExceededError(owner.name, violations, is_lasting=True)


def _violations(quota: Quota, **asked: int) -> Iterator[QuotaViolation]:
    for name, amount in asked.items():
        accepted: int | None = getattr(quota, name)
        if accepted is not None and amount > accepted:
            yield QuotaViolation(name, amount, accepted)
