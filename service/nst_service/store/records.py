"""The plain values that go into the store and come out of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nst_service.lifecycle import JobState

_SEQUENCES_OF_A_RUN = 2**32
"""Number of sequences that each run of a job has for its events. Even those of the millionth run are exact doubles."""


def first_sequence(epoch: int) -> int:
    """Return the smallest sequence for the events of a run of a job (see `Lease.first_sequence`)."""
    return epoch * _SEQUENCES_OF_A_RUN


class BlobKind(StrEnum):
    """The purpose for which a job uses a blob."""

    REQUEST = "request"
    """The document of the request; one for a job."""
    PICTURE = "picture"
    """A picture that the request names by its sha256."""
    CHECKPOINT = "checkpoint"
    """The latest stored snapshot of a job that has not ended; the next run goes on from it."""
    RESULT = "result"
    """The finished picture; one for a job."""


class DisconnectPolicy(StrEnum):
    """The fate of a job whose last follower disconnects."""

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


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob that is stored."""

    sha256: str
    size: int
    """Size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event of a job, as the job layer has serialised it."""

    sequence: int
    """The place of the event in the log of its job; see `Lease.first_sequence`."""
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """The latest event of its kind, which a later one makes outdated."""

    job_id: str
    kind: str
    """The kind of the event. A job has one live event of each kind."""
    event: StoredEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """The facts of a job that are known from its acceptance on and never change."""

    id: str
    owner: str
    """The name of the owner, who alone may see the job; empty on a server without tokens."""
    request_id: str | None
    """The id that the client has chosen, unique for an owner; None if the client has chosen none."""
    request_digest: str
    """A checksum of the request, which tells a repeated request from another one with the same `request_id`."""
    disconnect_policy: DisconnectPolicy
    deadline: float | None
    """The deadline in seconds since the UNIX epoch, as all times here; None for none."""
    accepted_event: bytes
    """The serialised `Accepted`: effective options and estimates, to be had without reading the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob(_Job):
    """A job to store."""

    size: tuple[int, int]
    """(width, height) of the result in pixels, as `accepted_event` tells it."""
    blobs: Sequence[Blob]
    """The document of the request, and the pictures that it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredJob(_Job):
    """A job as the store has it."""

    size: tuple[int, int] | None
    """(width, height) of the result in pixels. None if release 0.1.0 has accepted or run the job: then the last event
    that tells a size is right."""
    number: int
    """The number of the job. It grows in the order of acceptance, whatever the clock does."""
    state: JobState
    epoch: int
    """The number of leases that the job has had; 0 before its first run."""
    lost_runs: int
    """The number of runs in a row that have ended by the death of their server or device, without a checkpoint."""
    cancel_requested: bool
    """Whether the job is to be cancelled."""
    outcome: bytes | None
    """The outcome of the job, as the job layer has serialised it; None before its end."""
    created_at: float
    updated_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class Submission:
    """The answer to a new job."""

    job: StoredJob
    """The stored job."""
    created: bool
    """Whether the job is new; False if it is the job that the same request has led to before."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job and to store what becomes of it. It ends when the job ends or is queued again."""

    job: StoredJob
    """The job as it was when the lease was given."""

    @property
    def epoch(self) -> int:
        """The number of this lease among those of the job, from 1."""
        return self.job.epoch

    @property
    def first_sequence(self) -> int:
        """The smallest sequence for the events of this run.

        It is larger than every sequence of the runs before, including those of events that were sent to watchers and
        never stored. So a watcher that asks for the events after the last one it saw misses none of this run.
        """
        return first_sequence(self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatReply:
    """The answer of the store to a heartbeat."""

    cancelled: frozenset[str]
    """The ids of the jobs that this server holds and that are to be cancelled."""
    requeued: tuple[str, ...]
    """The ids of the jobs whose server has died, and which are in the queue again."""
    held: frozenset[str] = frozenset()
    """The ids of the jobs that this server holds: it runs them, or they wait in its queue."""
    followed_elsewhere: frozenset[str] = frozenset()
    """The ids of those of the jobs held here that calls of other servers follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The limits of what is kept."""

    max_age_seconds: float
    """Seconds from the end of a job to its removal."""
    max_bytes: int
    """The largest size of everything stored. Above it the oldest ended jobs are removed. If that does not suffice, no
    new job is accepted."""
    min_free_bytes: int
    """The free space of a local disk that is reserved for running jobs. Below it no new job is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The size of a store."""

    used_bytes: int
    """Bytes of all jobs and their blobs."""
    free_bytes: int | None
    """Free bytes of the disk of the blobs; None if that is unknown, as on S3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """The numbers of what a cleaning has removed."""

    jobs: int
    """The number of ended jobs that exceeded the retention."""
    blobs: int
    """The number of blobs that no job used."""
    unknown: int
    """The number of files in the folder that the database does not know. They are left alone."""
