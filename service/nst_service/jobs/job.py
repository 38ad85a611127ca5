"""One job: what it shall do, where it stands, and its log."""

import math
import uuid
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.log import EventLog
from nst_service.jobs.sharing import Claim, weight
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
    expected_seconds: float
    """Of its device, in all, as it was expected on acceptance."""
    owner: str = ""
    """Who may see it and end it (see `Owner.name`)."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    state: JobState = JobState.QUEUED
    log: EventLog = field(default_factory=EventLog)
    stop_requested: StopReason | None = None
    """Set by the event loop; the worker looks after every step."""
    abandoned: bool = False
    """Whether nobody is left to receive a picture."""
    remaining_seconds: float = field(init=False)
    """Of its device, still; kept up to date by the worker once the job runs."""
    next_seconds: float = 0.0
    """Of its device for its next step, which nothing can interrupt; 0 before the first."""

    def __post_init__(self) -> None:
        self.remaining_seconds = self.expected_seconds

    def claim(self, now: float) -> Claim:
        """Return what the job asks of a device at a time on the clock of `time.monotonic`."""
        return Claim(
            seconds=self.remaining_seconds,
            weight=weight(self.expected_seconds),
            memory=self.cost.peak_bytes,
            slack=math.inf if self.deadline is None else self.deadline - now,
        )
