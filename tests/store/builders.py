"""Jobs, events and stores to test with."""

import hashlib
import itertools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nst_service.store.blobs import BlobFolder
from nst_service.store.database import Database
from nst_service.store.records import Blob, BlobKind, DisconnectPolicy, Lease, NewJob, Retention, StoredEvent
from nst_service.store.store import Store

ENDLESS = Retention(max_age_seconds=1e9, max_bytes=2**40, min_free_bytes=0)


class Clock:
    """A time of day that stands still until time passes or somebody sets it, in either direction."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0
        self._passed = 0.0

    @property
    def now(self) -> float:
        return self._now

    @now.setter
    def now(self, now: float) -> None:
        """Let time pass up to a later time of day, or set the time of day back."""
        self._passed += max(0.0, now - self._now)
        self._now = now

    def __call__(self) -> float:
        return self._now

    def set_forward(self, seconds: float) -> None:
        """Set the time of day to a later one, without any time passing."""
        self._now += seconds

    def steady(self) -> float:
        """Return the seconds that have passed, as a clock does that nobody can set."""
        return self._passed


@dataclass(frozen=True)
class Place:
    """The place of a store."""

    directory: Path
    database_url: str | None
    folder: Path | None = None
    """The folder of the blobs; None for one in the directory."""

    @property
    def is_shared(self) -> bool:
        """Whether several stores may be open at once."""
        return self.database_url is not None

    @property
    def blobs(self) -> Path:
        return self.folder or self.directory / "blobs"

    def blob_files(self) -> list[Path]:
        """Return the files in the folder of the blobs, except its mark."""
        return [path for path in self.blobs.iterdir() if not path.name.startswith("store.")]

    def database(self) -> Database:
        return Database.of(self.database_url) if self.database_url else Database.at(self.directory / "nst.sqlite")

    def open(self, **changes: Any) -> Store:
        """Open a store that takes every other server for dead, unless the changes say otherwise."""
        options: dict[str, Any] = {"retention": ENDLESS, "lease_seconds": 0.0} | changes
        options.setdefault("open_folder", lambda writer: BlobFolder.at(str(self.blobs), writer))
        if isinstance(clock := options.get("clock"), Clock):
            options.setdefault("steady_clock", clock.steady)
        return Store(self.database(), **options)


@dataclass
class Sequences:
    """Numbers events as one run does."""

    first: int
    _numbers: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(self.first)

    def events(self, *data: bytes) -> list[StoredEvent]:
        return [StoredEvent(sequence=next(self._numbers), data=each) for each in data]


def new_job(
    *,
    owner: str = "ada",
    request_id: str | None = None,
    request: bytes = b"paint this",
    pictures: Sequence[bytes] = (b"a photograph", b"a painting"),
    accepted_event: bytes = b"accepted",
    size: tuple[int, int] = (512, 384),
) -> NewJob:
    return NewJob(
        id=str(uuid.uuid4()),
        owner=owner,
        request_id=request_id,
        request_digest=hashlib.sha256(request).hexdigest(),
        disconnect_policy=DisconnectPolicy.KEEP_RUNNING if request_id else DisconnectPolicy.CANCEL,
        deadline=None,
        accepted_event=accepted_event,
        size=size,
        blobs=[
            Blob.hashed(BlobKind.REQUEST, request),
            *(Blob.hashed(BlobKind.PICTURE, picture) for picture in pictures),
        ],
    )


def lease_next(store: Store) -> Lease | None:
    """Lease the job that has been queued for the longest time; None if no job is queued."""
    leases = (store.lease(job.id) for job in store.queue())
    return next((lease for lease in leases if lease), None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
