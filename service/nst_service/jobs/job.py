"""One job: its plan, the requests to its worker, its state, its end and its log."""

import asyncio
import dataclasses
import math
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from nst_service.engine.estimate import Cost
from nst_service.engine.outline import TransferOutline
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import JobError, MovedError, NotServingError, Unavailability
from nst_service.jobs.log import EventLog
from nst_service.jobs.placement import Claim, weight
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import DisconnectPolicy, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlan:
    """The facts of a job that are decided when it is accepted and never change."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    owner: str = ""
    """Name of the owner, who alone may see and end the job (see `Owner.name`)."""
    request_id: str | None = None
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL
    accepted_at: float
    """Time of acceptance in seconds, on the clock of `time.monotonic`."""
    deadline: float | None = None
    """Time by which the result must be delivered, on the same clock; None for no deadline."""
    expected_seconds: float
    """Seconds of device time that the job was expected to take when it was accepted."""
    earlier_runs: int = 0
    """The number of runs that the job had before it got into the queue of this server."""


@dataclass(eq=False, kw_only=True)
class JobControl:
    """The requests of the event loop to the worker of a running job.

    Only the event loop writes them. The worker reads them between two steps.
    """

    listener: Callable[[], None] | None = None
    """Called after each change, for a device that is in another process; None for no listener."""
    stop_requested: StopReason | None = None
    """The reason for which the job must stop with its best picture so far; None if it may go on."""
    must_leave: bool = False
    """Whether the job must leave its device, in order to go on elsewhere."""
    is_abandoned: bool = False
    """Whether nobody needs the outcome of the job any more."""
    next_checkpoint: float = math.inf
    """Time from which the next snapshot is wanted, on the clock of `time.monotonic`; infinite for none."""

    def __setattr__(self, name: str, value: object) -> None:
        """Set a request, and tell the listener."""
        super().__setattr__(name, value)
        if self.listener:
            self.listener()


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work that a device has done for a job, in all runs of this process."""

    iterations: int = 0
    """The number of steps of the optimiser."""
    megapixel_iterations: float = 0.0
    """Megapixels of the scale of each step, all steps together."""
    taken_back: int = 0
    """The number of steps that were taken back, because the loss grew or was not finite."""
    device_seconds: float = 0.0
    """Seconds of the device for targets and steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The present work of a job. Its worker publishes a new state after each step. Any thread may read the latest one.

    The outline belongs to the state and not to the plan, because it becomes smaller if memory runs out. The pictures
    belong to the run: a job that waits holds none.
    """

    outline: TransferOutline
    cost: Cost
    remaining_seconds: float
    """Seconds of device time that the job is still expected to take."""
    next_seconds: float = 0.0
    """Seconds that the next step is expected to take, which nothing can interrupt; 0 before the first step."""
    work: Work = Work()
    """Work that is done."""


@dataclass(frozen=True, slots=True)
class Probation:
    """A run of a job that may have killed its servers. It runs alone, so that nothing else dies with it."""

    begins_at: float
    """Time from which the job may run, on the clock of `time.monotonic`."""


class RequeueCause(StrEnum):
    """The reason for which a job has left its device and waits for another one of the same server."""

    DEVICE_LOST = "device_lost"
    """The device has failed or does not answer, perhaps because of the job."""
    DEVICE_REMOVED = "device_removed"
    """The device leaves the server."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has ended for good."""

    state: JobState
    """The terminal state that is stored."""
    error: JobError | None = None
    """Error that the followers get; None for a job that has a picture."""
    stop_reason: StopReason | None = None
    """The reason for which the optimisation ended; None for a job without a picture."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Another server has the job. The store has its further events."""

    @property
    def error(self) -> JobError:
        """Error that makes the followers go on with the store."""
        return MovedError()


@dataclass(frozen=True, slots=True)
class Drained:
    """This server leaves. The job goes on at the next start or on another server, if it has a request id."""

    @property
    def error(self) -> JobError:
        """Error that makes the followers try again later."""
        return NotServingError(Unavailability.DRAINING)


End = Ended | Moved | Drained
"""The reason for which a job is not on this server any more. Only `Ended` is the end of the job itself."""


@dataclass(eq=False, kw_only=True)
class Job:
    """A job on this server. It belongs to the event loop, except for `run_state`."""

    plan: JobPlan
    run_state: RunState
    """The present work of the job. As soon as the job runs, only its worker replaces this value."""
    control: JobControl = field(default_factory=JobControl)
    log: EventLog = field(default_factory=EventLog)
    rendering: "asyncio.Task[TransferSpec] | None" = None
    """The decoding of its pictures, before its run begins; whoever cancels this task stops the job. None otherwise."""
    decoding_seconds: float = 0.0
    """Seconds that its pictures took to be read and decoded before its last run; 0 before its first run."""
    not_before: float = -math.inf
    """Time before which the job must not be tried again, on the clock of `time.monotonic`."""
    is_running: bool = False
    """Whether the job has a place on a device."""
    end: End | None = None
    """The reason for which the job is not here any more; None while it waits or runs."""
    lease: Lease | None = None
    """The right to run the job; None before it runs."""
    probation: Probation | None = None
    """The probation of the job; None if it is above suspicion or has stored a checkpoint since."""
    awaits_follower: bool = False
    """Whether the job is new, and the call that has started it does not follow it yet."""
    unfollowed_since: float | None = None
    """Time since which nobody is known to follow a job that is cancelled without a follower, on the clock of
    `time.monotonic`; None if the job is followed."""

    @property
    def id(self) -> str:
        """Id of the job."""
        return self.plan.id

    @property
    def owner(self) -> str:
        """Name of the owner."""
        return self.plan.owner

    @property
    def state(self) -> JobState:
        """State of the job. A job that has moved or was drained counts as queued, because it goes on elsewhere."""
        match self.end:
            case None:
                return JobState.RUNNING if self.is_running else JobState.QUEUED
            case Ended(state):
                return state
            case _:
                return JobState.QUEUED

    def requeue(self) -> None:
        """Prepare the job, which has left its device, to go on elsewhere. Its followers and its log stay."""
        assert self.lease is not None
        self.plan = dataclasses.replace(self.plan, earlier_runs=self.lease.epoch)
        # The last run may still read its requests.
        self.control = JobControl(stop_requested=self.control.stop_requested)
        self.run_state = dataclasses.replace(self.run_state, next_seconds=0.0)
        self.is_running, self.lease = False, None

    def claim(self, now: float) -> Claim:
        """Return the claim of the job on a device at a time on the clock of `time.monotonic`."""
        # Read once, because the worker may replace it at any time.
        run, deadline = self.run_state, self.plan.deadline
        return Claim(
            seconds=run.remaining_seconds,
            weight=weight(self.plan.expected_seconds),
            # A job on probation shares its device with no other job.
            memory=sys.maxsize if self.probation else run.cost.peak_bytes,
            slack=math.inf if deadline is None else deadline - now,
        )
