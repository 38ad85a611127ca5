"""The store behaves like a simple model of it under random sequences of calls."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from nst_service.lifecycle import JobState
from nst_service.store.errors import LeaseLostError
from nst_service.store.records import Lease, Retention

from tests.store.builders import Clock, Place, Sequences, new_job

_MAX_AGE = 100.0
_PICTURES = st.lists(st.sampled_from([b"cat", b"dog", b"sea"]), max_size=2, unique=True)


@dataclass
class _Job:
    """The expected state of a job."""

    request: bytes
    state: JobState = JobState.QUEUED
    epoch: int = 0
    events: list[int] = field(default_factory=list)
    checkpoint: bytes | None = None
    result: bytes | None = None
    cancelled: bool = False
    finished_at: float = 0.0


class _Model(RuleBasedStateMachine):
    leases = Bundle("leases")
    jobs = Bundle("jobs")

    @initialize()
    def open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nst-store-")
        self._place = Place(Path(self._folder.name), None)
        self._clock = Clock()
        self._known: dict[str, _Job] = {}
        self._sequences: dict[tuple[str, int], Sequences] = {}
        self._open()

    def _open(self) -> None:
        retention = Retention(max_age_seconds=_MAX_AGE, max_bytes=2**40, min_free_bytes=0)
        self._store = self._place.open(retention=retention, clock=self._clock)

    def teardown(self) -> None:
        if hasattr(self, "_store"):
            self._store.close()
            self._folder.cleanup()

    @rule(target=jobs, pictures=_PICTURES)
    def submit(self, pictures: list[bytes]) -> str:
        request = b"request %d" % len(self._known)
        job = self._store.submit(new_job(request=request, pictures=pictures)).job
        self._known[job.id] = _Job(request)
        return job.id

    @rule(target=leases, job_id=jobs)
    def lease(self, job_id: str) -> Lease | None:
        lease = self._store.lease(job_id)
        known = self._known[job_id]
        assert (lease is not None) == (known.state is JobState.QUEUED)
        if lease:
            known.state, known.epoch = JobState.RUNNING, known.epoch + 1
            assert (lease.epoch, lease.job.cancel_requested) == (known.epoch, known.cancelled)
            self._sequences[job_id, lease.epoch] = Sequences(lease.first_sequence)
        return lease

    def _holds(self, lease: Lease) -> bool:
        known = self._known[lease.job.id]
        return (known.state, known.epoch) == (JobState.RUNNING, lease.epoch)

    @rule(lease=leases.filter(bool), count=st.integers(0, 3))
    def append(self, lease: Lease, count: int) -> None:
        batch = self._sequences[lease.job.id, lease.epoch].events(*[b"event"] * count)
        try:
            self._store.append(lease, batch)
        except LeaseLostError:
            assert not self._holds(lease)
        else:
            assert self._holds(lease)
            self._known[lease.job.id].events += [event.sequence for event in batch]

    @rule(lease=leases.filter(bool), data=st.sampled_from([b"one", b"two", b"cat"]))
    def checkpoint(self, lease: Lease, data: bytes) -> None:
        try:
            self._store.save_checkpoint(lease, data)
        except LeaseLostError:
            assert not self._holds(lease)
        else:
            assert self._holds(lease)
            self._known[lease.job.id].checkpoint = data

    @rule(lease=leases.filter(bool))
    def release(self, lease: Lease) -> None:
        try:
            self._store.release(lease)
        except LeaseLostError:
            assert not self._holds(lease)
        else:
            assert self._holds(lease)
            self._known[lease.job.id].state = JobState.QUEUED

    @rule(
        lease=consumes(leases).filter(bool),
        state=st.sampled_from([state for state in JobState if state.is_terminal]),
        result=st.sampled_from([None, b"cat", b"painting"]),
    )
    def finish(self, lease: Lease, state: JobState, result: bytes | None) -> None:
        try:
            self._store.finish(lease, state, outcome=b"", result=result)
        except LeaseLostError:
            assert not self._holds(lease)
        else:
            assert self._holds(lease)
            known = self._known[lease.job.id]
            known.state, known.result, known.checkpoint, known.finished_at = state, result, None, self._clock.now

    @rule(job_id=jobs)
    def cancel(self, job_id: str) -> None:
        known = self._known[job_id]
        if not known.state.is_terminal:
            known.cancelled = True
            if known.state is JobState.QUEUED and known.epoch == 0:
                known.state, known.finished_at = JobState.CANCELLED, self._clock.now
        if self._store.job(job_id):
            assert self._store.cancel(job_id) is known.state

    @rule()
    def restart(self) -> None:
        """The server dies without telling the store."""
        self._store._database.close()
        self._open()
        running = {job_id for job_id, known in self._known.items() if known.state is JobState.RUNNING}
        assert set(self._store.heartbeat().requeued) == running
        for job_id in running:
            self._known[job_id].state = JobState.QUEUED

    @rule(seconds=st.sampled_from([-1000.0, 30.0, 80.0]))
    def clock_moves(self, seconds: float) -> None:
        self._clock.now += seconds

    @rule()
    def clean(self) -> None:
        self._store.clean()
        for job_id, known in self._known.items():
            too_old = self._clock.now - known.finished_at > _MAX_AGE
            assert (self._store.job(job_id) is None) <= (known.state.is_terminal), "live jobs stay"
            if known.state.is_terminal and too_old:
                assert self._store.job(job_id) is None

    @invariant()
    def everything_is_as_it_should_be(self) -> None:
        if not hasattr(self, "_store"):
            return
        for job_id, known in self._known.items():
            job = self._store.job(job_id)
            if job is None:
                assert known.state.is_terminal
                continue
            assert (job.state, job.epoch, job.cancel_requested) == (known.state, known.epoch, known.cancelled)
            assert [event.sequence for event in self._store.events(job_id)] == known.events
            assert self._store.request(job_id) == known.request
            assert self._store.checkpoint(job_id) == known.checkpoint
            assert self._store.result(job_id) == known.result
        waiting = [job_id for job_id, known in self._known.items() if known.state is JobState.QUEUED]
        assert [job.id for job in self._store.queue()] == waiting


_Model.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestModel = _Model.TestCase
