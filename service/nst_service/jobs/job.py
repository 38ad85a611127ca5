"""One job: what it does, what is asked of it, where it stands, how it ended, and its log."""

import math
import uuid
from dataclasses import dataclass, field

from nst_service.engine.estimate import Cost
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import JobError, MovedError, NotServingError, Unavailability
from nst_service.jobs.log import EventLog
from nst_service.jobs.placement import Claim, weight
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """What was decided when a job was accepted. It never changes."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    owner: str = ""
    """Name of the owner, who alone may see the job and end it (see `Owner.name`)."""
    request_id: str | None = None
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL
    accepted_at: float
    """Time of acceptance in seconds, on the clock of `time.monotonic`."""
    deadline: float | None = None
    """Time by which the result must be delivered, on the same clock; None for no deadline."""
    expected_seconds: float
    """Seconds of its device that the job was expected to take when it was accepted."""
    earlier_runs: int = 0
    """How often the job was begun before this server took it on."""


@dataclass(eq=False, kw_only=True)
class JobControl:
    """What the event loop asks of a running job. Only the event loop writes it; the worker reads it between steps."""

    stop_requested: StopReason | None = None
    """Why the job is to stop with its best picture so far; None while it is to go on."""
    must_leave: bool = False
    """Whether the job is to leave its device, to go on elsewhere."""
    is_abandoned: bool = False
    """Whether nobody wants any more what the job's current step gives."""
    next_checkpoint: float = math.inf
    """Time from which the next snapshot is wanted, on the clock of `time.monotonic`; infinite for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What a job is doing now. Its worker publishes a new one after each step; any thread may read the latest.

    The specification is here and not in the plan, since it shrinks where memory runs out: the larger pictures go with
    the state that held them.
    """

    spec: TransferSpec
    cost: Cost
    remaining_seconds: float
    """Seconds of its device that the job is still expected to take."""
    next_seconds: float = 0.0
    """Seconds that its next step is expected to take, which nothing can interrupt; 0 before the first step."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended, for good."""

    state: JobState
    """The terminal state that is stored."""
    error: JobError | None = None
    """Error that its followers get; None for a job that has a picture."""
    stop_reason: StopReason | None = None
    """Why the optimisation ended; None for a job without a picture."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The job goes on elsewhere: another server has it, and the store tells how it goes on."""

    @property
    def error(self) -> JobError:
        """Error that sends the followers to the store."""
        return MovedError()


@dataclass(frozen=True, slots=True)
class Drained:
    """This server leaves. The job goes on when a server is back, unless nobody can name it."""

    @property
    def error(self) -> JobError:
        """Error that sends the followers away."""
        return NotServingError(Unavailability.DRAINING)


End = Ended | Moved | Drained
"""Why a job is not on this server any more. Only `Ended` is the end of the job itself."""


@dataclass(eq=False, kw_only=True)
class Job:
    """A stylisation that this server has taken on. It belongs to the event loop, but for what its worker publishes."""

    plan: JobPlan
    run: RunState
    """What the job is doing now. The worker alone replaces it once the job runs."""
    control: JobControl = field(default_factory=JobControl)
    log: EventLog = field(default_factory=EventLog)
    is_running: bool = False
    """Whether the job has a place on a device."""
    end: End | None = None
    """Why the job is here no more; None while it waits or runs."""
    lease: Lease | None = None
    """The right to run it; None before it runs."""
    followers: int = 0
    """Calls that follow the job now."""
    unfollowed_since: float | None = None
    """Time since which a job that can be reattached has had no follower, on the clock of `time.monotonic`."""

    @property
    def id(self) -> str:
        """Id of the job."""
        return self.plan.id

    @property
    def owner(self) -> str:
        """Name of its owner."""
        return self.plan.owner

    @property
    def state(self) -> JobState:
        """Where the job is in its life; a job that has moved or was drained counts as queued, since it goes on."""
        match self.end:
            case None:
                return JobState.RUNNING if self.is_running else JobState.QUEUED
            case Ended(state):
                return state
            case _:
                return JobState.QUEUED

    def claim(self, now: float) -> Claim:
        """Return what the job asks of a device at a time on the clock of `time.monotonic`."""
        deadline = self.plan.deadline
        return Claim(
            seconds=self.run.remaining_seconds,
            weight=weight(self.plan.expected_seconds),
            memory=self.run.cost.peak_bytes,
            slack=math.inf if deadline is None else deadline - now,
        )
