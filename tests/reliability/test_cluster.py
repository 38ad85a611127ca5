"""Servers on one PostgreSQL and one S3 behind HAProxy: whatever breaks, no job is lost and none is delivered twice."""

import asyncio
import contextlib
import itertools
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.cluster import LEASE_SECONDS, Cluster, running
from tests.reliability.serving import TERMINAL, Launcher, MakeRequest, Story, Stub, Undisturbed

# Fixtures are known where their names are.
from tests.store.conftest import postgres, s3  # noqa: F401
from tests.store.postgres import Postgres
from tests.store.s3 import S3

_SERVERS = 3
_FAULTS_SHORT, _FAULTS_LONG = 10, 200
_CLIENTS = 6
_SEEDS = 2
_ITERATIONS = (5, 40)
_HANG_SECONDS = 600
"""Seconds after which a job counts as lost, once nothing is broken any more."""
_RETRY_SECONDS = 0.05
_QUOTA = 2
_KEEP, _CANCEL = pb.DISCONNECT_POLICY_KEEP_RUNNING, pb.DISCONNECT_POLICY_CANCEL
_DOCUMENTED = Path(__file__).parents[2] / "docs/reference/errors.md"
_LOST = {"CANCELLED", "UNKNOWN", "INTERNAL", "UNAVAILABLE"}
"""The statuses without details that a proxy or gRPC makes up for a connection that is lost."""
_UNEXPECTED = re.compile(r"a background task has failed|unexpected error|CRITICAL|future: .*nst_service")
"""What no log of a server may contain. aiohttp leaves errors of its tasks to nobody when S3 is away."""

Status = tuple[str, str]
"""The code of a status, and the reason in its details; empty if it has none."""


def status_of(error: grpc.aio.AioRpcError) -> Status:
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    unpacked = any(detail.Unpack(info) for detail in status.details) if status else False
    return error.code().name, info.reason if unpacked else ""


def documented_statuses() -> set[Status]:
    rows = re.findall(r"^\|[^|]*\| ([A-Z_]+) \| (?:`([A-Z_]+)`)? *\|", _DOCUMENTED.read_text(), re.MULTILINE)
    return {(code, reason) for code, reason in rows}


class Clients:
    """Clients of every kind. They note what must not happen, and go on."""

    def __init__(
        self, cluster: Cluster, stubs: dict[str, list[Stub]], rng: random.Random, expected: dict[bytes, bytes]
    ):
        self._cluster = cluster
        self._stubs = stubs
        self._rng = rng
        self._expected = expected
        self.is_over = False
        self.findings: list[str] = []
        """What must not happen and did."""
        self.statuses: Counter[Status] = Counter()
        self.figures: Counter[str] = Counter()
        self.job_ids: list[str] = []
        """The ids of the jobs that go on whatever happens to calls."""
        self.delivered: dict[str, int] = {}
        """The jobs whose result a client has, each with the number of its leases then."""
        self._is_allowed = documented_statuses()

    def find(self, finding: str) -> None:
        """Note what must not happen. It is printed at once, because the rest may hang then."""
        print(f"found: {finding}", flush=True)
        self.findings.append(finding)

    def any_stub(self, owner: str = "many") -> Stub:
        return self._rng.choice(self._stubs[owner])

    def picture_of(self, request: pb.StylizeRequest) -> bytes:
        return self._expected[request.options.SerializeToString(deterministic=True)]

    async def note(self, error: grpc.aio.AioRpcError) -> Status:
        """Note the status of a call, and pause."""
        status = status_of(error)
        self.statuses[status] += 1
        if status[1] == "" and status[0] in _LOST:
            pass
        elif status not in self._is_allowed:
            self.find(f"undocumented status {status}: {error.details()}")
        await asyncio.sleep(_RETRY_SECONDS)
        return status

    async def follow(self, request: pb.StylizeRequest, owner: str = "many", story: Story | None = None) -> Story:
        """Follow a job to its end through any server, with both ways to reattach."""
        ids, story = set(), story or Story()
        while story.completed is None:
            stub = self.any_stub(owner)
            if story.job_id and (not request.request_id or self._rng.random() < 0.5):
                call = stub.watch(story.job_id, story.last)
            else:
                story, call = Story(), stub.stylize(request)
            try:
                await story.read(call)
                if story.completed is None:
                    self.find(f"the call of job {story.job_id} has ended before its job")
            except grpc.aio.AioRpcError as error:
                code, reason = await self.note(error)
                if code not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") and (reason or code not in _LOST):
                    raise
            if story.job_id:
                ids.add(story.job_id)
        if len(ids) > 1:
            self.find(f"request {request.request_id} has several jobs: {ids}")
        await self.check_delivered(story, request)
        return story

    async def check_delivered(self, story: Story, request: pb.StylizeRequest | None) -> None:
        """Check a job that a client has seen the end of."""
        assert story.completed is not None
        if request and story.data != self.picture_of(request):
            self.find(f"job {story.job_id} has delivered wrong bytes: {story.completed}")
        [(state, epoch)] = await self._cluster.records.rows("SELECT state, epoch FROM jobs WHERE id = %s", story.job_id)
        if state in ("queued", "running"):
            self.find(f"job {story.job_id} was delivered before it was kept: {state}")
        if self.delivered.setdefault(story.job_id, epoch) != epoch:
            self.find(f"job {story.job_id} was delivered and has run again")
        self.figures["deliveries"] += 1

    def request(self, make: MakeRequest, **fields: object) -> pb.StylizeRequest:
        return make(self._rng.choice(_ITERATIONS), self._rng.randrange(_SEEDS), **fields)

    async def reattach(self, make: MakeRequest) -> None:
        """Start a job, and come back to it whenever a call breaks."""
        story = await self.follow(self.request(make, disconnect_policy=self._rng.choice((_KEEP, _CANCEL))))
        self.job_ids.append(story.job_id)
        self.figures["reattached"] += 1

    async def race(self, make: MakeRequest) -> None:
        """Send one request several times at once."""
        request = self.request(make, disconnect_policy=_KEEP)
        stories = await asyncio.gather(*(self.follow(request) for _ in range(3)))
        if len({story.job_id for story in stories}) != 1:
            self.find(f"request {request.request_id} has several jobs")
        self.figures["races"] += 1

    async def bare(self, make: MakeRequest) -> None:
        """Start a job without a request id, and watch it if its call breaks."""
        request, story, is_broken = self.request(make, request_id=""), Story(), False
        while not story.job_id:
            try:
                await story.read(self.any_stub().stylize(request))
            except grpc.aio.AioRpcError as error:
                status = await self.note(error)
                # A server that leaves says so, and cannot keep what nobody can reattach to.
                is_broken = not status[1] or status[0] == "UNAVAILABLE"
                if story.job_id and not is_broken:
                    self.find(f"job {story.job_id} has ended with its call open: {status}")
        while story.completed is None:
            try:
                await story.read(self.any_stub().watch(story.job_id, story.last))
            except grpc.aio.AioRpcError as error:
                code, reason = await self.note(error)
                if (code, reason) == ("CANCELLED", "CANCELLED"):
                    # That is what is promised for a job that nobody can reattach to.
                    self.figures["bare, cancelled"] += 1
                    if not is_broken:
                        self.find(f"job {story.job_id} was cancelled with its call open")
                    return
                if code == "NOT_FOUND" or (code == "INTERNAL" and reason):
                    self.find(f"bare job {story.job_id}: {code} {reason}")
                    return
        is_finished = story.completed.stop_reason == pb.STOP_REASON_ITERATIONS
        if story.completed.stop_reason == pb.STOP_REASON_CANCELLED and not is_broken:
            self.find(f"job {story.job_id} was cancelled with its call open")
        await self.check_delivered(story, request if is_finished else None)
        self.figures["bare, finished" if is_finished else "bare, ended early"] += 1

    async def watch(self) -> None:
        """Read all of a job that others have started."""
        if not self.job_ids:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        job_id, story = self._rng.choice(self.job_ids), Story()
        while story.completed is None:
            try:
                await story.read(self.any_stub().watch(job_id, story.last))
            except grpc.aio.AioRpcError as error:
                code, _ = await self.note(error)
                if code == "NOT_FOUND":
                    self.find(f"job {job_id} is lost")
                    return
        await self.check_delivered(story, None)
        self.figures["watched"] += 1

    async def cancel(self, make: MakeRequest) -> None:
        """Cancel a job through any server soon after its start."""
        request, story = self.request(make, disconnect_policy=_KEEP), Story()
        while not story.job_id:
            try:
                await story.read(self.any_stub().stylize(request), "accepted")
            except grpc.aio.AioRpcError as error:
                await self.note(error)
        while True:
            try:
                await self.any_stub().cancel(story.job_id)
                break
            except grpc.aio.AioRpcError as error:
                await self.note(error)
        while (state := await self._state(story.job_id)) not in TERMINAL:
            await asyncio.sleep(_RETRY_SECONDS)
        if state == pb.JOB_STATE_FAILED:
            self.find(f"job {story.job_id} was cancelled and has failed")
        self.figures["cancelled"] += 1

    async def _state(self, job_id: str) -> int:
        while True:
            try:
                return (await self.any_stub().job(job_id)).state
            except grpc.aio.AioRpcError as error:
                if (await self.note(error))[0] == "NOT_FOUND":
                    self.find(f"job {job_id} is lost")

    async def press_a_quota(self, make: MakeRequest) -> None:
        """Send more requests at once than the quota of the owner accepts, each to another server."""
        requests = [self.request(make, disconnect_policy=_KEEP) for _ in range(2 * _QUOTA)]
        await asyncio.gather(*(self._ask_within_quota(request) for request in requests))

    async def _ask_within_quota(self, request: pb.StylizeRequest) -> None:
        try:
            story = Story()
            await story.read(self.any_stub("few").stylize(request), "accepted")
        except grpc.aio.AioRpcError as error:
            status = await self.note(error)
            if status == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
                self.figures["refused by the quota"] += 1
                return
        # The call may have broken after its job was accepted. The same request finds it.
        await self.follow(request, "few")
        self.figures["accepted by the quota"] += 1

    async def watch_the_quota(self) -> None:
        """Look all the time at how many jobs the owner has."""
        query = "SELECT count(*) FROM jobs WHERE owner = 'few' AND state IN ('queued', 'running')"
        while True:
            [(held,)] = await self._cluster.records.rows(query)
            self.figures["most jobs within the quota"] = max(held, self.figures["most jobs within the quota"])
            if held > _QUOTA:
                self.find(f"the quota of {_QUOTA} jobs has let {held} in")
            await asyncio.sleep(_RETRY_SECONDS)

    async def work(self, make: MakeRequest, number: int) -> None:
        """Be one client after the other."""
        kinds = [self.reattach, self.race, self.bare, lambda _: self.watch(), self.cancel, self.press_a_quota]
        for kind in itertools.islice(itertools.cycle(kinds), number, None):
            if self.is_over:
                return
            await kind(make)


@contextlib.asynccontextmanager
async def _stubs(cluster: Cluster) -> AsyncIterator[dict[str, list[Stub]]]:
    """Yield connections of each owner to the balancer and to each server."""
    stubs = {owner: [Stub(port, token) for port in cluster.ports] for owner, token in cluster.tokens.items()}
    async with contextlib.AsyncExitStack() as channels:
        for stub in itertools.chain(*stubs.values()):
            await channels.enter_async_context(stub.channel)
        yield stubs


async def _break_things(cluster: Cluster, rng: random.Random, number: int) -> Counter[str]:
    """Let faults happen one after the other, and some of them during others."""
    kinds = cluster.faults(rng)
    done: Counter[str] = Counter()
    while done.total() < number:
        async with contextlib.AsyncExitStack() as faults:
            for name in rng.sample(sorted(kinds), rng.choice((1, 1, 2))):
                await faults.enter_async_context(kinds[name]())
                done[name] += 1
                print(f"fault {done.total()}: {name}", flush=True)
                await asyncio.sleep(rng.uniform(0, 0.5))
            # Some of them last so long that the others take a server for dead.
            await asyncio.sleep(rng.choice((0.2, 1.0, 1.5 * LEASE_SECONDS)) * rng.random())
        await asyncio.sleep(rng.uniform(0, 0.5))
    return done


@pytest.fixture
async def cluster(
    launcher: Launcher,
    postgres: Postgres,  # noqa: F811
    s3: S3,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[Cluster]:
    quotas = {"many": {}, "few": {"jobs": _QUOTA}}
    async with running(
        _SERVERS, launcher=launcher, folder=tmp_path, postgres=postgres, s3=s3, quotas=quotas
    ) as cluster:
        yield cluster


async def test_a_cluster_loses_no_job_and_runs_none_again_that_was_delivered(
    cluster: Cluster, named: MakeRequest, undisturbed: Undisturbed, rng: random.Random, chaos: bool
):
    kinds = [named(iterations, seed) for iterations in _ITERATIONS for seed in range(_SEEDS)]
    expected = {kind.options.SerializeToString(deterministic=True): await undisturbed(kind) for kind in kinds}
    async with _stubs(cluster) as stubs:
        clients = Clients(cluster, stubs, rng, expected)
        async with asyncio.timeout(None) as patience, asyncio.TaskGroup() as group:
            group.create_task(cluster.supervise())
            sampling = group.create_task(clients.watch_the_quota())
            await cluster.serving()
            working = [group.create_task(clients.work(named, number)) for number in range(_CLIENTS)]
            faults = await _break_things(cluster, rng, _FAULTS_LONG if chaos else _FAULTS_SHORT)
            clients.is_over = True
            patience.reschedule(asyncio.get_running_loop().time() + _HANG_SECONDS)
            await asyncio.gather(*working)
            sampling.cancel()
            await cluster.stop()
        for job_id, epoch in clients.delivered.items():
            rows = await cluster.records.rows("SELECT state, epoch FROM jobs WHERE id = %s", job_id)
            if [row[1] for row in rows] != [epoch]:
                clients.find(f"job {job_id} was delivered and has run again: {rows}")
        # Nobody may know of a job without a request id. Then it is cancelled a while after its call broke.
        left = "SELECT id FROM jobs WHERE state IN ('queued', 'running') AND request_id IS NOT NULL"
        assert await cluster.records.rows(left) == []
    logs = [line for node in cluster.nodes for line in node.server.log.read_text().splitlines()]
    clients.findings += filter(_UNEXPECTED.search, logs)
    print(f"{faults.total()} faults: {dict(faults)}")
    print(f"jobs: {dict(clients.figures)}; statuses: {dict(clients.statuses)}")
    assert clients.findings == []
