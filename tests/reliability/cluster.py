"""Several real servers on one PostgreSQL and one S3 behind HAProxy, with everything between them that can break."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nst_service.tokens import format_entry, make_token
from s3fs import S3FileSystem

from tests.reliability.serving import KillableServer, Launcher, Proxy, free_port
from tests.store.postgres import Postgres
from tests.store.s3 import S3

LEASE_SECONDS = 4.0
"""Seconds without a heartbeat after which the servers take each other for dead."""
_FAULTS = {"forgiven_deaths": 10**6, "lease": LEASE_SECONDS}
_BUCKET = "nst"
_PAUSE = 0.1
"""Seconds between two looks at the servers."""

Fault = Callable[[], contextlib.AbstractAsyncContextManager[None]]
"""Begins a fault. The end of the context ends it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A server, and the relays around it."""

    server: KillableServer
    front: Proxy
    """Between the balancer and the server."""
    database: Proxy
    blobs: Proxy
    settings: dict[str, Any]


class Balancer:
    """A real HAProxy, which speaks HTTP/2 with clients and servers."""

    def __init__(self, folder: Path, targets: list[int]):
        program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
        if not program:
            pytest.skip("HAProxy is not installed (Debian: apt-get install haproxy)")
        self.port = free_port()
        self._settings, self._socket = folder / "haproxy.cfg", folder / "haproxy.sock"
        servers = "\n".join(f"server s{number} 127.0.0.1:{port} proto h2" for number, port in enumerate(targets))
        self._settings.write_text(
            f"""
            global
                stats socket {self._socket} level admin
            defaults
                mode http
                timeout connect 1s
                timeout client 1h
                timeout server 1h
                option redispatch
            frontend clients
                bind 127.0.0.1:{self.port} proto h2
                default_backend servers
            backend servers
                balance roundrobin
                {servers}
            """.rstrip()
            + "\n"
        )
        self._command = [program, "-db", "-f", self._settings]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()

    def order(self, *commands: str) -> None:
        """Send commands to the balancer."""
        for command in commands:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self._socket))
                connection.sendall(f"{command}\n".encode())
                while connection.recv(4096):
                    pass


class Records:
    """What the database knows of the jobs, seen without any server."""

    def __init__(self, url: str):
        self._url = url

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the answer to a query, as soon as the database answers."""
        return await asyncio.to_thread(self._rows, query, values)

    def _rows(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        while True:
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._url, autocommit=True) as connection:
                return connection.execute(query, values).fetchall()  # type: ignore[call-overload, no-any-return]
            time.sleep(_PAUSE)


@dataclass(kw_only=True)
class Cluster:
    """The servers, and the faults that they can have."""

    nodes: list[Node]
    balancer: Balancer
    records: Records
    tokens: dict[str, str]
    """The tokens by their owners."""
    postgres: Postgres
    s3: S3

    def __post_init__(self) -> None:
        self._wanted = set(range(len(self.nodes)))
        """The servers that are to run."""
        self._lock = asyncio.Lock()
        """The launcher takes one order after the other."""

    @property
    def ports(self) -> list[int]:
        """The ports that clients connect to."""
        return [self.balancer.port, *(node.front.port for node in self.nodes)]

    async def serving(self) -> None:
        """Wait until every server serves."""
        for node in self.nodes:
            async with node.server.stub() as stub:
                await stub.serving()

    async def supervise(self) -> None:
        """Start every server that should run and does not, as a supervisor of services does, until `stop` is called."""
        while self._wanted:
            async with self._lock:
                for number in sorted(self._wanted):
                    if not self.nodes[number].server.is_alive:
                        await asyncio.to_thread(self._start, number)
            await asyncio.sleep(_PAUSE)

    async def stop(self) -> None:
        """End every server."""
        async with self._lock:
            self._wanted.clear()
            for node in self.nodes:
                await asyncio.to_thread(node.server.kill)

    def faults(self, rng: random.Random) -> dict[str, Fault]:
        """Return the kinds of faults by their names. Most of them happen to any of the servers."""

        def on_any(fault: Callable[[int], contextlib.AbstractAsyncContextManager[None]]) -> Fault:
            return lambda: fault(rng.randrange(len(self.nodes)))

        return {
            "server killed": on_any(lambda number: self._ended(number, signal.SIGKILL)),
            "server drained": on_any(lambda number: self._ended(number, signal.SIGTERM)),
            "server stopped": on_any(self._stopped),
            "no way to a server": on_any(lambda number: self._cut_off(self.nodes[number].front)),
            "no way to the database": on_any(lambda number: self._cut_off(self.nodes[number].database)),
            "no way to S3": on_any(lambda number: self._cut_off(self.nodes[number].blobs)),
            "connections to the database reset": on_any(lambda number: self._reset(self.nodes[number].database)),
            "connections to a server reset": on_any(lambda number: self._reset(self.nodes[number].front)),
            "server drained by the balancer": on_any(self._drained_by_the_balancer),
            "balancer killed": self._without_balancer,
            "database killed": self._without_database,
            "S3 stopped": self._without_blobs,
        }

    def _start(self, number: int) -> None:
        node = self.nodes[number]
        node.server.kill()
        # The launcher has not got the keys of the S3 of a test.
        keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        environment = keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{node.blobs.port}"}
        node.server.start(_FAULTS | {"environment": environment}, **node.settings)

    @contextlib.asynccontextmanager
    async def _ended(self, number: int, how: signal.Signals) -> AsyncIterator[None]:
        """End a server with a signal."""
        self._wanted.discard(number)
        async with self._lock:
            await asyncio.to_thread(self.nodes[number].server.kill, how)
        try:
            yield
        finally:
            self._wanted.add(number)

    @contextlib.asynccontextmanager
    async def _stopped(self, number: int) -> AsyncIterator[None]:
        """Stop a server, which lives on later."""
        async with self._lock:
            server = self.nodes[number].server
            process = server.process if server.is_alive else None
            if process:
                process.suspend()
        try:
            yield
        finally:
            if process and process.is_running():
                process.resume()

    @contextlib.asynccontextmanager
    async def _cut_off(self, relay: Proxy) -> AsyncIterator[None]:
        """Let nothing through a relay, without closing a connection."""
        relay.freeze()
        try:
            yield
        finally:
            relay.thaw()

    @contextlib.asynccontextmanager
    async def _reset(self, relay: Proxy) -> AsyncIterator[None]:
        """Reset the connections through a relay."""
        relay.cut()
        yield

    @contextlib.asynccontextmanager
    async def _drained_by_the_balancer(self, number: int) -> AsyncIterator[None]:
        """Let the balancer end the calls of a server and send all others elsewhere."""
        commands = (f"set server servers/s{number} state drain", f"shutdown sessions server servers/s{number}")
        await asyncio.to_thread(self.balancer.order, *commands)
        try:
            yield
        finally:
            await asyncio.to_thread(self.balancer.order, f"set server servers/s{number} state ready")

    @contextlib.asynccontextmanager
    async def _without_balancer(self) -> AsyncIterator[None]:
        self.balancer.kill()
        try:
            yield
        finally:
            self.balancer.start()

    @contextlib.asynccontextmanager
    async def _without_database(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.postgres.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.postgres.start)

    @contextlib.asynccontextmanager
    async def _without_blobs(self) -> AsyncIterator[None]:
        await asyncio.to_thread(self.s3.stop)
        try:
            yield
        finally:
            await asyncio.to_thread(self.s3.start)


@contextlib.asynccontextmanager
async def running(
    number: int, *, launcher: Launcher, folder: Path, postgres: Postgres, s3: S3, quotas: dict[str, dict[str, int]]
) -> AsyncIterator[Cluster]:
    """Make a cluster with a number of servers, which `supervise` starts, and with a token for each owner.

    Args:
        number: the number of servers.
        launcher: starts them.
        folder: holds their logs.
        postgres: holds their database.
        s3: holds their blobs.
        quotas: the quotas of the owners.
    """
    url = postgres.new_database()
    S3FileSystem().mkdir(_BUCKET)
    tokens = {owner: make_token() for owner in quotas}
    (folder / "tokens.toml").write_text("".join(format_entry(tokens[owner], owner, quotas[owner]) for owner in quotas))
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for index in range(number):
            own = folder / str(index)
            own.mkdir()
            server = KillableServer(launcher, own)
            ports = (server.port, postgres.port, s3.port)
            relays = [await stack.enter_async_context(Proxy(port).listening()) for port in ports]
            settings = {
                "database": url.replace(f":{postgres.port}/", f":{relays[1].port}/"),
                "blobs": f"s3://{_BUCKET}/jobs",
                "tokens": str(folder / "tokens.toml"),
                "checkpoint_seconds": 0.3,
                "grace": 0.5,
            }
            nodes.append(Node(server, *relays, settings))
        balancer = Balancer(folder, [node.front.port for node in nodes])
        stack.callback(balancer.kill)
        cluster = Cluster(nodes=nodes, balancer=balancer, records=Records(url), tokens=tokens, postgres=postgres, s3=s3)
        balancer.start()
        try:
            yield cluster
        finally:
            await cluster.stop()
