"""What goes into the store and comes out of it: plain values."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nst_service.lifecycle import JobState

_SEQUENCES_OF_A_RUN = 2**32
"""Sequences that each run of a job has for its events. Even the millionth run stays exact as a double."""


class BlobKind(StrEnum):
    """What a job uses a blob for."""

    REQUEST = "request"
    """What was asked for; one for a job."""
    PICTURE = "picture"
    """A picture that the request names by its sha256."""
    CHECKPOINT = "checkpoint"
    """Where to go on after a restart; the latest one of a job that has not ended."""
    RESULT = "result"
    """The finished picture; one for a job."""


class DisconnectPolicy(StrEnum):
    """What becomes of a job when its client goes away."""

    CANCEL = "cancel"
    KEEP_RUNNING = "keep_running"


Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes that a job uses, named by their checksum."""

    kind: BlobKind
    sha256: str
    """The checksum of the parts, in hexadecimal."""
    parts: Sequence[Buffer] = field(repr=False)
    """The bytes, one part after the other, so that large bytes in pieces need not be joined."""

    @classmethod
    def hashed(cls, kind: BlobKind, *parts: Buffer) -> "Blob":
        """Return the blob of parts whose checksum nobody has computed yet."""
        checksum = hashlib.sha256()
        for part in parts:
            checksum.update(part)
        return cls(kind=kind, sha256=checksum.hexdigest(), parts=parts)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(memoryview(part).nbytes for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event of a job, as the job layer has serialised it."""

    sequence: int
    """Grows from event to event of a job; see `Lease.first_sequence`."""
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is told of a job when it is taken on, and never changes."""

    id: str
    owner: str
    """Who may see it; empty where the server knows no owners."""
    request_id: str | None
    """Unique for an owner; None for a job that no other call can name."""
    request_digest: str
    """Equal for equal requests, to tell a repeated request from another one with the same `request_id`."""
    disconnect_policy: DisconnectPolicy
    deadline: float | None
    """In seconds since the epoch of UNIX, as all times here; None for none."""
    accepted_event: bytes
    """The serialised `Accepted`: effective options and estimates, to be had without reading the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob(_Job):
    """A job to take on."""

    size: tuple[int, int]
    """(width, height) of the result in pixels, as `accepted_event` tells it."""
    blobs: Sequence[Blob]
    """The request, and the pictures that it names."""
    events: Sequence[StoredEvent] = ()
    """What the job begins with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob(_Job):
    """A job as the store knows it."""

    size: tuple[int, int] | None
    """(width, height) of the result in pixels. None for a job that release 0.1.0 has accepted or run: the last event
    that tells a size is right there."""
    number: int
    """Grows from job to job in the order of acceptance, whatever the clock did."""
    state: JobState
    epoch: int
    """How often it has been leased; 0 before its first run."""
    lost_runs: int
    """How often in a row the server or the device that ran it has died before it came any further."""
    cancel_requested: bool
    outcome: bytes | None
    """How it ended, as the job layer has serialised it; None before."""
    created_at: float
    updated_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to a request for a new job."""

    job: StoredJob
    created: bool
    """False where the same request had been accepted before: this is its job."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job, and to write what becomes of it, until another lease of the job is given."""

    job: StoredJob
    """As it was when the lease was given."""

    @property
    def epoch(self) -> int:
        """Tells this lease from every other one of the job."""
        return self.job.epoch

    @property
    def first_sequence(self) -> int:
        """The least sequence for events of this run.

        It lies above every sequence of the runs before, those included that were sent to watchers and never stored:
        so a watcher that goes on after the last event it saw misses nothing of this run.
        """
        return self.epoch * _SEQUENCES_OF_A_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """What a server learns from its heartbeat."""

    cancelled: frozenset[str]
    """Ids of the jobs that this server runs and that are to be cancelled."""
    recovered: tuple[str, ...]
    """Ids of the jobs whose server has died: they are in the queue again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept, and how long."""

    max_age_seconds: float
    """Since the end of a job; older jobs are removed."""
    max_bytes: int
    """Of everything stored; the oldest ended jobs are removed above this, and no new ones accepted where that does not
    help."""
    min_free_bytes: int
    """Of the disk, to be left to the jobs that run already; no new ones are accepted below it. Local disks only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What retention has removed."""

    jobs: int
    blobs: int
