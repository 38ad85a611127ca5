"""Servers whose devices are real actors of a Ray cluster."""

import functools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from nst_client import StopReason, StyleTransferClient
from nst_client.events import Completed, Event, Progress, Reconnected, Started
from nst_client.options import TransferOptions

from tests.ray.conftest import RayServer, wait_for

_ORPHAN_SECONDS = 60
"""Seconds after which nothing may be left of a server that was killed."""
_AGENT_SECONDS = 120
"""Seconds after which nothing may be left of Ray itself. Its agents try for a minute to report that it has died."""
_KILLS = int(os.environ.get("KILLS_OF_ACTORS", "1"))
"""The number of actors that are killed. More take a minute each on a slow machine."""
_ITERATIONS = 30


@dataclass
class Followed:
    """A job that is followed in a thread, with what its follower sees."""

    client: StyleTransferClient
    content: bytes
    style: bytes
    iterations: int = _ITERATIONS
    seed: int = 0
    timeout: float | None = None
    events: list[Event] = field(default_factory=list)
    picture: bytes = b""
    error: Exception | None = None

    def __post_init__(self) -> None:
        options = TransferOptions(image_size=64, scales=1, iterations=self.iterations, seed=self.seed)
        self.stream = self.client.stream(
            self.content, self.style, options=options, keep_running=self.timeout is None, timeout=self.timeout
        )
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self) -> None:
        try:
            for event in self.stream:
                self.events.append(event)
            self.picture = self.stream.result.data
        except Exception as error:
            self.error = error

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def iteration(self) -> int:
        return max((event.iteration for event in self.events if isinstance(event, Progress)), default=0)

    @property
    def device(self) -> str:
        return [event.device for event in self.events if isinstance(event, Started)][-1]

    def sees(self, condition: Callable[[], object]) -> "Followed":
        """Wait until a condition is true, or the job has ended."""
        wait_for(lambda: condition() or not self.thread.is_alive())
        assert self.error is None, self.error
        return self

    def reaches(self, iteration: int) -> "Followed":
        return self.sees(lambda: self.iteration >= iteration)

    def ended(self) -> bytes:
        self.thread.join(600)
        assert not self.thread.is_alive()
        assert self.error is None, self.error
        return self.picture


Follow = Callable[..., Followed]


@pytest.fixture
def follow(content_png: bytes, style_png: bytes) -> Follow:
    return lambda client, **settings: Followed(client, content_png, style_png, **settings)


@pytest.fixture
def expected(tmp_path: Path, follow: Follow) -> Callable[..., bytes]:
    """Return a function that returns the picture of a request on the CPU of this machine, on one thread."""

    def expected(seed: int = 0, iterations: int = _ITERATIONS) -> bytes:
        folder = tmp_path / "undisturbed"
        folder.mkdir()
        server = RayServer(folder, {"device": "cpu", "threads": 1})
        server.start()
        try:
            with server.client() as client:
                return follow(client, seed=seed, iterations=iterations).ended()
        finally:
            server.kill(signal.SIGTERM)

    return expected


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_jobs_have_the_bytes_of_this_machine_whatever_becomes_of_their_actors(
    ray_server: RayServer, follow: Follow, expected: Callable[..., bytes]
):
    same = expected()
    ray_server.start(devices=2)
    with ray_server.client() as client:
        job = follow(client)
        assert job.ended() == same
        assert job.device in ("ray-1", "ray-2")
        print("kill | at iteration | seconds to Started | seconds to Progress | runs | same bytes | reconnects")
        moments = random.Random(0)
        for kill in range(_KILLS):
            job = follow(client).reaches(moments.randrange(2, _ITERATIONS - 5))
            row = _killed(job, ray_server.processes[job.device])
            print(f"{kill + 1} | {row} | {job.picture == same} | {len(job.of(Reconnected))}")
            assert job.picture == same
            assert len(job.of(Completed)) == 1
            assert not job.of(Reconnected)
            wait_for(functools.partial(ray_server.has_started, 3 + kill))
    # Ray adds this to every log record, unless the server keeps it from that.
    assert "_ray_timestamp_ns" not in ray_server.log


def _killed(job: Followed, pid: int) -> str:
    """Kill the actor of a job, and return a row of the table when the job has ended."""
    iteration, killed_at = job.iteration, time.monotonic()
    os.kill(pid, signal.SIGKILL)
    job.sees(lambda: len(job.of(Started)) > 1)
    started, seen = time.monotonic() - killed_at, len(job.events)
    job.sees(lambda: any(isinstance(event, Progress) for event in job.events[seen:]))
    progress = time.monotonic() - killed_at
    job.ended()
    return f"{iteration} | {started:.1f} | {progress:.1f} | {len(job.of(Started))}"


def test_an_actor_that_hangs_is_replaced_within_its_timeout(ray_server: RayServer, follow: Follow):
    ray_server.start(devices=2)
    with ray_server.client() as client:
        undisturbed = follow(client).ended()
        job = follow(client).reaches(5)
        pid = ray_server.processes[job.device]
        stopped_at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: len(job.of(Started)) == 2)
        print(f"the job runs again {time.monotonic() - stopped_at:.1f} s after its actor was stopped")
        assert job.ended() == undisturbed
        assert not job.of(Reconnected)
        wait_for(lambda: is_gone(pid))
        wait_for(lambda: ray_server.has_started(3))
    assert "it has not answered for 6 s" in ray_server.log


def test_jobs_are_cancelled_and_meet_their_deadlines_on_actors(ray_server: RayServer, follow: Follow):
    ray_server.start(devices=2)
    with ray_server.client() as client:
        job = follow(client, iterations=5000).reaches(5)
        job.stream.cancel()
        seen = job.iteration
        assert job.ended()
        (completed,) = job.of(Completed)
        assert isinstance(completed, Completed)
        assert completed.stop_reason is StopReason.CANCELLED
        print(f"cancelled at iteration {seen}, ended at {completed.iterations}")
        job = follow(client, iterations=50, timeout=120.0)
        assert job.ended()


def test_the_next_server_takes_the_jobs_over_and_nothing_is_left_of_the_one_that_was_killed(
    ray_server: RayServer, follow: Follow
):
    ray_server.start(devices=2)
    with ray_server.client(reconnect_seconds=200.0) as client:
        undisturbed = follow(client, iterations=80).ended()
        job = follow(client, iterations=80).reaches(20)
        actors = list(ray_server.processes.values())
        ray_server.kill()
        killed_at = time.monotonic()
        wait_for(lambda: all(map(is_gone, actors)), _ORPHAN_SECONDS)
        print(f"no actor was left after {time.monotonic() - killed_at:.1f} s")
        ray_server.start(devices=1)
        assert job.ended() == undisturbed
        print(f"the job ended {time.monotonic() - killed_at:.1f} s after its server was killed")
        assert job.of(Reconnected)


def test_actors_that_their_server_does_not_reach_end_and_the_job_goes_on_when_it_does(
    ray_server: RayServer, follow: Follow
):
    ray_server.start(devices=2)
    with ray_server.client(reconnect_seconds=300.0) as client:
        undisturbed = follow(client).ended()
        job = follow(client).reaches(5)
        actors = list(ray_server.processes.values())
        assert ray_server.process
        # As behind a network that is cut: nothing of it has died, and nothing arrives.
        ray_server.process.send_signal(signal.SIGSTOP)
        try:
            wait_for(lambda: all(map(is_gone, actors)), _ORPHAN_SECONDS)
        finally:
            ray_server.process.send_signal(signal.SIGCONT)
        assert job.ended() == undisturbed


def test_nothing_of_a_cluster_of_its_own_is_left_of_a_server_that_was_killed(ray_server: RayServer):
    ray_server.settings |= {"ray": "local", "ray_devices": "cpu:1"}
    ray_server.start(devices=1)
    assert ray_server.process
    processes = [child.pid for child in psutil.Process(ray_server.process.pid).children(recursive=True)]
    assert set(ray_server.processes.values()) < set(processes)
    actors = list(ray_server.processes.values())
    ray_server.kill()
    wait_for(lambda: all(map(is_gone, actors)), _ORPHAN_SECONDS)
    wait_for(lambda: all(map(is_gone, processes)), _AGENT_SECONDS)


def test_a_server_gives_its_actors_back_when_it_ends(ray_server: RayServer):
    ray_server.start(devices=2)
    actors = list(ray_server.processes.values())
    assert ray_server.kill(signal.SIGTERM) == 0
    wait_for(lambda: all(map(is_gone, actors)), _ORPHAN_SECONDS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ray_devices": "tpu:2"}, "ray_devices is 'tpu:2'; accepted are gpu:N and cpu:N for N devices"),
        ({"ray": "127.0.0.1:1"}, "no Ray cluster can be reached at '127.0.0.1:1': [Errno 111] Connection refused"),
    ],
)
def test_a_server_says_why_it_cannot_use_a_cluster(ray_server: RayServer, settings: dict[str, object], message: str):
    ray_server.settings |= settings
    with pytest.raises(AssertionError):
        ray_server.start()
    assert message in ray_server.log
    assert "Traceback" not in ray_server.log
