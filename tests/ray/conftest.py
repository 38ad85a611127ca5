"""A Ray cluster of this machine, and servers that have their devices there."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from nst_client import StyleTransferClient

pytest.importorskip("ray")

_HANG_SECONDS = 600
"""Seconds after which a test counts as hung. No test measures time."""
_DEVICE = re.compile(r"device (ray-\d+) is \S+ of .*, process (\d+)")
_CODE = "from nst_launcher.commands import server; server()"
_RAY_CODE = "from ray.scripts.scripts import main; main()"


def wait_for(condition: Callable[[], object], seconds: float = _HANG_SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "hung"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class RayServer:
    """A server in a process of its own."""

    folder: Path
    settings: dict[str, object]
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def log(self) -> str:
        path = self.folder / "server.log"
        return path.read_text() if path.exists() else ""

    @property
    def processes(self) -> dict[str, int]:
        """The process of each device, the latest one."""
        return {name: int(pid) for name, pid in _DEVICE.findall(self.log)}

    def has_started(self, number: int) -> bool:
        """Return whether this number of processes of devices have become warm so far."""
        return len(set(_DEVICE.findall(self.log))) >= number

    def start(self, devices: int = 0) -> None:
        """Start the server, and wait until this number of devices is ready, and the server serves."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        started = self.log.count("is ready")
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _CODE,
                    f"--address=127.0.0.1:{self.port}",
                    f"--data-dir={self.folder}/data",
                    *flags,
                ],
                stdout=log,
                stderr=log,
            )
        serving = self.log.count("serving with")
        wait_for(lambda: self._is_alive() and self.log.count("serving with") > serving)
        wait_for(lambda: self._is_alive() and self.log.count("is ready") >= started + devices)

    def _is_alive(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        return True

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(_HANG_SECONDS)

    def client(self, **settings: float) -> StyleTransferClient:
        return StyleTransferClient(f"127.0.0.1:{self.port}", **settings)


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a cluster of one node with two CPUs, and return its address."""
    os.environ.update(RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", RAY_DISABLE_IMPORT_WARNING="1")
    folder = tmp_path_factory.mktemp("ray")
    port = free_port()
    # Paths of sockets must be short.
    flags = ["--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}"]
    flags += ["--include-dashboard=false", f"--object-store-memory={150 * 2**20}"]
    with (folder / "ray.log").open("wb") as log:
        cluster = subprocess.Popen([sys.executable, "-c", _RAY_CODE, "start", *flags], stdout=log, stderr=log)
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text() or cluster.poll() is not None)
        assert cluster.poll() is None, (folder / "ray.log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        children = psutil.Process(cluster.pid).children(recursive=True)
        cluster.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            cluster.wait(30)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


@pytest.fixture
def ray_server(tmp_path: Path, ray_address: str) -> Iterator[RayServer]:
    """A server with two devices in the cluster, which is not started yet."""
    settings = {"ray": ray_address, "ray_devices": "cpu:2", "threads": 1, "ray_timeout": 5, "checkpoint_seconds": 0.2}
    server = RayServer(tmp_path, settings)
    yield server
    if server.process and server.process.poll() is None:
        server.kill(signal.SIGTERM)
