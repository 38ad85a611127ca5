"""What durability costs: every call of the store that a job makes, timed, and their sum for one job.

python -m bench.store [--database-url postgresql://...] [--directory DIR]
"""

import argparse
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from nst_service.jobs.states import JobState
from nst_service.store.records import Blob, BlobKind, DisconnectPolicy, Lease, NewJob, Retention, StoredEvent
from nst_service.store.store import Store

JOB_SECONDS = 30.0
ITERATIONS = 100
"""Of the job that all is compared with; each appends its events at once."""
CHECKPOINT_SECONDS = 5.0
HEARTBEAT_SECONDS = 2.0
LONGEST_EDGE, HISTORY = 256, 20
CHECKPOINT_BYTES = (2 * HISTORY + 3) * LONGEST_EDGE**2 * 3 * 4
"""Of a square picture and the whole memory of L-BFGS, in single precision."""
EVENT_BYTES, EVENTS_IN_BATCH = 600, 2
PICTURE_BYTES = 150_000


@dataclass
class Calls:
    """What one kind of call took, in seconds."""

    in_job: float
    """How often a job makes it."""
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time one call."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def new_job() -> NewJob:
    blobs = [Blob(kind=kind, data=os.urandom(PICTURE_BYTES)) for kind in (BlobKind.PICTURE, BlobKind.PICTURE)]
    return NewJob(
        id=str(uuid.uuid4()),
        owner="bench",
        request_id=str(uuid.uuid4()),
        request_digest="",
        disconnect_policy=DisconnectPolicy.KEEP_RUNNING,
        deadline=None,
        options=bytes(EVENT_BYTES),
        blobs=[*blobs, Blob(kind=BlobKind.REQUEST, data=os.urandom(EVENT_BYTES))],
        events=[StoredEvent(sequence=1, data=bytes(EVENT_BYTES))],
    )


def run(store: Store, jobs: int) -> dict[str, Calls]:
    calls = {
        "submit": Calls(1),
        "lease": Calls(1),
        "append": Calls(ITERATIONS),
        "save_checkpoint": Calls(JOB_SECONDS / CHECKPOINT_SECONDS),
        "heartbeat": Calls(JOB_SECONDS / HEARTBEAT_SECONDS),
        "finish": Calls(1),
    }
    for _ in range(jobs):
        job = new_job()
        with calls["submit"].timed():
            store.submit(job)
        with calls["lease"].timed():
            lease = store.lease(job.id)
        assert lease is not None
        for iteration in range(ITERATIONS):
            batch = events(lease, iteration)
            with calls["append"].timed():
                store.append(lease, batch)
            if iteration % (ITERATIONS * CHECKPOINT_SECONDS / JOB_SECONDS) < 1:
                checkpoint = os.urandom(CHECKPOINT_BYTES)
                with calls["save_checkpoint"].timed():
                    store.save_checkpoint(lease, checkpoint)
                with calls["heartbeat"].timed():
                    store.heartbeat()
        result = os.urandom(PICTURE_BYTES)
        with calls["finish"].timed():
            store.finish(lease, JobState.SUCCEEDED, outcome=bytes(EVENT_BYTES), result=result)
    return calls


def events(lease: Lease, iteration: int) -> list[StoredEvent]:
    first = lease.first_sequence + iteration * EVENTS_IN_BATCH
    return [StoredEvent(sequence=first + index, data=bytes(EVENT_BYTES)) for index in range(EVENTS_IN_BATCH)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", help="of a PostgreSQL; SQLite without it")
    parser.add_argument("--directory", type=Path, help="on the disk to measure; a temporary one without it")
    parser.add_argument("--jobs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.directory) as name:
        retention = Retention(max_age_seconds=3600, max_bytes=2**40, min_free_bytes=0)
        store = Store.open(Path(name), database_url=args.database_url, retention=retention, lease_seconds=60)
        calls = run(store, args.jobs)
        store.close()
    print(f"one job: {ITERATIONS} iterations in {JOB_SECONDS:g} s; a checkpoint has {CHECKPOINT_BYTES / 1e6:.1f} MB")
    print(f"{'call':<16}{'in a job':>9}{'median ms':>11}{'worst ms':>10}{'CPU ms':>9}{'CPU of job':>12}")
    total = 0.0
    for name, kind in calls.items():
        cpu = sum(kind.cpu) / len(kind.cpu)
        share = kind.in_job * cpu / JOB_SECONDS
        total += share
        wall = f"{1e3 * median(kind.wall):>11.2f}{1e3 * max(kind.wall):>10.2f}"
        print(f"{name:<16}{kind.in_job:>9g}{wall}{1e3 * cpu:>9.2f}{share:>12.3%}")
    print(f"{'all':<55}{total:>12.3%}")


if __name__ == "__main__":
    main()
