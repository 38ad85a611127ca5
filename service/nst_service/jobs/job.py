"""One job: what it shall do, where it stands, and its log."""

import uuid
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.log import EventLog
from nst_service.jobs.states import JobState, StopReason


@dataclass(eq=False, kw_only=True)
class Job:
    """A stylisation that the scheduler has taken on. It belongs to the event loop; its worker reads it."""

    spec: TransferSpec
    cost: Cost
    accepted_at: float
    """On the clock of `time.monotonic`, in seconds."""
    deadline: float | None
    """On the same clock; None for none."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: JobState = JobState.QUEUED
    log: EventLog = field(default_factory=EventLog)
    stop_requested: StopReason | None = None
    """Set by the event loop; the worker looks after every step."""
    abandoned: bool = False
    """Whether nobody is left to receive a picture."""
    expected_end: float | None = None
    """On the same clock, kept up to date by the worker once the job runs."""
