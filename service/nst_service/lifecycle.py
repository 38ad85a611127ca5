"""The life of a job."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


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
        return not _SUCCESSORS[self]

    @property
    def predecessors(self) -> frozenset["JobState"]:
        """The states from which a job may come into this one."""
        return frozenset(state for state, successors in _SUCCESSORS.items() if self in successors)


_SUCCESSORS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
        # Back into the queue: its server has left or died, and another goes on.
        JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED}),
        JobState.SUCCEEDED: frozenset(),
        JobState.CANCELLED: frozenset(),
        JobState.FAILED: frozenset(),
    }
)


class StopReason(StrEnum):
    """Why an optimisation ended."""

    ITERATIONS = "iterations"
    CONVERGED = "converged"
    TIME_BUDGET = "time_budget"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"
