"""Finished jobs with large pictures, without the time to make them."""

import hashlib
import random
import uuid
from pathlib import Path

from nst.v1 import style_transfer_pb2 as pb
from nst_service.lifecycle import JobState
from nst_service.store.records import Blob, BlobKind, DisconnectPolicy, NewJob, Retention, StoredEvent
from nst_service.store.store import Store

_CHUNK_BYTES = 2**20 - 2**10
"""The size of the chunks of real servers."""


def store_finished_jobs(directory: Path, sizes: list[int]) -> dict[str, str]:
    """Store jobs with pictures of these sizes in bytes; return the SHA-256 of the pictures by the ids of the jobs."""
    retention = Retention(max_age_seconds=1e9, max_bytes=2**40, min_free_bytes=0)
    store = Store.open(directory, database_url=None, blobs_url=None, retention=retention, lease_seconds=0.0)
    pictures = {}
    for size in sizes:
        job_id, data = str(uuid.uuid4()), random.Random(size).randbytes(size)
        accepted = pb.JobEvent(sequence=1, accepted=pb.Accepted(job_id=job_id, width=1, height=1))
        document = b"request"
        digest = hashlib.sha256(document).hexdigest()
        store.submit(
            NewJob(
                id=job_id,
                owner="",
                request_id=job_id,
                request_digest=digest,
                disconnect_policy=DisconnectPolicy.KEEP_RUNNING,
                deadline=None,
                accepted_event=accepted.SerializeToString(),
                size=(1, 1),
                blobs=[Blob(kind=BlobKind.REQUEST, sha256=digest, parts=[document])],
            )
        )
        lease = store.lease(job_id)
        assert lease
        sha256, first = hashlib.sha256(data).hexdigest(), lease.first_sequence
        header = pb.ResultHeader(media_type="image/png", width=1, height=1, size_bytes=size, sha256=sha256)
        completed = pb.Completed(stop_reason=pb.STOP_REASON_ITERATIONS, iterations=1)
        last = first + 1 - (-size // _CHUNK_BYTES)
        store.finish(
            lease,
            JobState.SUCCEEDED,
            outcome=pb.Job(result=header, completed=completed).SerializeToString(),
            events=[
                StoredEvent(sequence=first, data=pb.JobEvent(sequence=first, result_header=header).SerializeToString()),
                StoredEvent(sequence=last, data=pb.JobEvent(sequence=last, completed=completed).SerializeToString()),
            ],
            result=data,
        )
        pictures[job_id] = sha256
    store.close()
    return pictures
