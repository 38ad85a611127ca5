"""The states of a job, and the reasons for which its optimisation stops."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, and its state will never change again."""
        return not _SUCCESSORS[self]

    @property
    def predecessors(self) -> frozenset["JobState"]:
        """The states from which a job can change to this state."""
        return frozenset(state for state, successors in _SUCCESSORS.items() if self in successors)


_SUCCESSORS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
        # Back to the queue: the server has left or died, and another one goes on.
        JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED}),
        JobState.SUCCEEDED: frozenset(),
        JobState.CANCELLED: frozenset(),
        JobState.FAILED: frozenset(),
    }
)


class StopReason(StrEnum):
    """The reason for which an optimisation ended."""

    ITERATIONS = "iterations"
    CONVERGED = "converged"
    TIME_BUDGET = "time_budget"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"
