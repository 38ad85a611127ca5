"""One job: what it shall do, where it stands, and its log."""

import math
import uuid
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.optim.resized_start import ResizedStart
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.log import EventLog
from nst_service.jobs.sharing import Claim, weight
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy, Lease


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
    request_id: str | None = None
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL
    runs: int = 0
    """How often it was begun before this server took it on."""
    state: JobState = JobState.QUEUED
    log: EventLog = field(default_factory=EventLog)
    stop_requested: StopReason | None = None
    """Set by the event loop; the worker looks after every step."""
    must_leave: bool = False
    """Whether it is to go on elsewhere: set by the event loop; the worker looks after every step."""
    given_up: bool = False
    """Whether what its step still gives is not wanted."""
    lease: Lease | None = None
    """The right to run it, once it runs."""
    snapshot: Snapshot | ResizedStart | None = None
    """Where it goes on, until it does."""
    next_checkpoint: float = math.inf
    """When to keep where it stands, on the clock of `time.monotonic`; never while the last one is being kept."""
    followers: int = 0
    """Calls that follow it now."""
    unfollowed_at: float = 0.0
    """Since when it has had none, on the clock of `time.monotonic`."""
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
