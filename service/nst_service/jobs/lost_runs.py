"""The verdict on jobs whose runs were lost, perhaps because they make their servers or devices fail."""

from enum import StrEnum

from nst_service.jobs.job import Probation
from nst_service.store.records import StoredJob

_SUSPECT_SECONDS = 10.0
"""Seconds after which a job is tried again that may have killed two servers.

A server that something else kills while it starts does not live that long, so such a job is not blamed for its end.
"""
KEEPS_CRASHING = "the server has died repeatedly while it ran this job"
"""The message of the error of a job that is given up."""
_MAX_LOST_RUNS = 3
"""The number of runs in a row that may be lost, without a checkpoint in between."""


class Verdict(StrEnum):
    """What becomes of a job whose runs were lost."""

    GO_ON = "go_on"
    PROBATION = "probation"
    """The job goes on, but nothing else may run that it could harm."""
    FINISH = "finish"
    """The job delivers its best picture. Nothing else may run meanwhile, either."""
    FAIL = "fail"


def judge(stored: StoredJob, *, has_checkpoint: bool) -> Verdict:
    """Return what becomes of a job, from the number of its runs in a row that were lost."""
    if stored.lost_runs >= _MAX_LOST_RUNS:
        # The attempt to deliver the picture of such a job may have made a server fail, too.
        is_hopeless = stored.lost_runs > _MAX_LOST_RUNS or not has_checkpoint
        return Verdict.FAIL if is_hopeless else Verdict.FINISH
    return Verdict.PROBATION if stored.lost_runs == _MAX_LOST_RUNS - 1 else Verdict.GO_ON


def new_probation(now: float) -> Probation:
    """Return the probation of a job that is tried again, from a time on the clock of `time.monotonic`."""
    return Probation(begins_at=now + _SUSPECT_SECONDS)
