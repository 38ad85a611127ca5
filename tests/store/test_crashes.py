"""Servers that are killed at random moments leave everything that the store has promised, and nothing in part."""

import json
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from nst_service.lifecycle import JobState
from nst_service.store.store import Store

from tests.store.builders import ENDLESS, Place, sha256

_KILLS = int(os.environ.get("NST_KILLS", "4"))


@dataclass
class _Promises:
    """The promises that the store has made by its answers."""

    requests: dict[str, str] = field(default_factory=dict)
    events: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    checkpoints: dict[str, int] = field(default_factory=dict)
    ends: dict[str, tuple[JobState, str]] = field(default_factory=dict)

    def note(self, said: dict[str, Any]) -> None:
        match said["what"]:
            case "submitted":
                self.requests[said["id"]] = said["request"]
            case "events":
                self.events[said["id"]].update(said["sequences"])
            case "checkpoint":
                self.checkpoints[said["id"]] = said["number"]
            case "ended":
                self.ends[said["id"]] = (JobState(said["state"]), said["result"])

    def check(self, store: Store) -> None:
        for job_id, request in self.requests.items():
            job = store.job(job_id)
            assert job is not None
            assert sha256(store.request(job_id) or b"") == request
            sequences = [event.sequence for event in store.events(job_id)]
            assert sequences == sorted(set(sequences))
            assert self.events[job_id] <= set(sequences)
            if job_id in self.ends:
                state, result = self.ends[job_id]
                assert job.state is state
                assert store.events(job_id)[-1].data == b"completed"
                assert sha256(store.result(job_id) or b"") == result
            elif job.state.is_terminal:
                # It was killed between the commit and saying so.
                assert store.result(job_id)
            else:
                assert job.state is JobState.QUEUED
                number = self.checkpoints.get(job_id)
                checkpoint = store.checkpoint(job_id)
                assert number is None or (checkpoint is not None and int(checkpoint[:8]) >= number)


def _work_until_killed(place: Place, chance: random.Random, promises: _Promises) -> None:
    command = [sys.executable, "-m", "tests.store.writer", str(place.directory), place.database_url or ""]
    with subprocess.Popen([*command, str(chance.getrandbits(32))], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(chance.randint(1, 60)):
            promises.note(json.loads(process.stdout.readline()))
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        for line in process.stdout:
            # It may have said more in the meantime; its last words may have been cut.
            if line.endswith("\n"):
                promises.note(json.loads(line))


def test_nothing_that_was_promised_is_lost_by_a_kill_at_any_moment(place: Place) -> None:
    seed = int(os.environ.get("NST_SEED", "0")) or random.SystemRandom().getrandbits(32)
    print(f"NST_SEED={seed}")
    chance, promises = random.Random(seed), _Promises()
    for _ in range(_KILLS):
        _work_until_killed(place, chance, promises)
        store = Store.open(place.directory, database_url=place.database_url, retention=ENDLESS, lease_seconds=0)
        store.heartbeat()
        promises.check(store)
        store.clean()
        promises.check(store)
        left = {path.name for path in place.blob_files()}
        needed = set(promises.requests.values()) | {sha256(b"a photograph"), sha256(b"a painting")}
        assert needed <= left
        assert not [name for name in left if name.startswith("partial")]
        store.close()
    assert promises.requests
