"""Whose a job is, and how much its owner may ask for. Pure: who counts the jobs is the scheduler."""

from collections.abc import Iterator
from dataclasses import dataclass

from nst_service.jobs.errors import Excess, NotPermittedError, QuotaExceededError


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
    """Of a job."""


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
