"""A server that works until it is killed: python -m tests.store.writer DIRECTORY URL SEED. URL may be empty.

Says what it has done, one JSON object on a line, once the store has said so.
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from nst_service.lifecycle import JobState
from nst_service.store.records import Lease
from nst_service.store.store import Store

from tests.store.builders import ENDLESS, Sequences, lease_next, new_job, sha256


def _say(what: str, **more: Any) -> None:
    print(json.dumps({"what": what, **more}), flush=True)


def _payload(chance: random.Random, index: int) -> bytes:
    return b"%08d" % index + chance.randbytes(chance.choice([10, 5_000, 300_000]))


def _run(store: Store, lease: Lease, chance: random.Random) -> None:
    job_id, sequences = lease.job.id, Sequences(lease.first_sequence)
    for index in range(chance.randint(0, 6)):
        batch = sequences.events(*(b"%d" % number for number in range(chance.randint(1, 5))))
        store.append(lease, batch)
        _say("events", id=job_id, sequences=[event.sequence for event in batch])
        if chance.random() < 0.5:
            # A later checkpoint has a larger number.
            store.save_checkpoint(lease, _payload(chance, number := lease.epoch * 1000 + index))
            _say("checkpoint", id=job_id, number=number)
    end = chance.choice(["finish", "finish", "cancel", "release"])
    if end == "release":
        store.release(lease)
    else:
        state = JobState.SUCCEEDED if end == "finish" else JobState.CANCELLED
        result = _payload(chance, 0)
        store.finish(lease, state, outcome=b"ended", events=sequences.events(b"completed"), result=result)
        _say("ended", id=job_id, state=state, result=sha256(result))


def main(directory: Path, url: str | None, chance: random.Random) -> None:
    store = Store.open(directory, database_url=url, retention=ENDLESS, lease_seconds=0)
    store.heartbeat()
    _say("ready")
    while True:
        request = _payload(chance, 0)
        job = store.submit(new_job(request=request)).job
        _say("submitted", id=job.id, request=sha256(request))
        if lease := lease_next(store):
            _run(store, lease, chance)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] or None, random.Random(int(sys.argv[3])))
