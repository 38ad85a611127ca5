"""The life of a job."""

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing will happen any more."""
        return self in (JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED)


class StopReason(StrEnum):
    """Why an optimisation ended."""

    ITERATIONS = "iterations"
    CONVERGED = "converged"
    TIME_BUDGET = "time_budget"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"
