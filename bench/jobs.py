"""Measures what durability costs a job, from end to end.

    python -m bench.jobs [--directory DIR] [--database postgresql://...]

One server has its data directory in memory and never waits for a disk; its code is the same. Another one has it on a
disk, and takes checkpoints in every second job. Both run in one process, because two processes can differ by a few
percent for no other reason than the layout of their memory.

The jobs of a round follow each other, so that other load of the machine meets all of them alike. The standard error of
each median is printed, too. Many short jobs (--iterations 25 --rounds 40 --checkpoint-seconds 3) give a smaller error
than a few long ones. Linux only.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import statistics
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from nst_client import StyleTransferClient
from nst_service.config import ServerConfig
from nst_service.server import Server

from bench.pictures import pairs
from bench.service import run_job

_MEMORY = Path("/dev/shm")
_NEVER = 1e9
_START_SECONDS = 120.0
_GOAL = 0.02
_MEDIAN_ERROR = 1.25
"""Ratio of the standard error of a median to that of a mean, for a normal distribution."""
_STORE_THREADS = ("nst-store", "nst-read")


@dataclass
class Contender:
    """A way to run jobs, and the times that they took."""

    name: str
    server: str
    """The name of the server that runs them."""
    checkpoint_seconds: float
    seconds: list[float] = field(default_factory=list)
    """Seconds of each job, from the request to the last byte."""
    store_seconds: list[float] = field(default_factory=list)
    """Processor seconds of the threads of the store during each job."""


class Running:
    """Several servers in one process, and a client of each."""

    def __init__(self, connection: Connection, clients: Mapping[str, StyleTransferClient]):
        self._connection = connection
        self.clients = clients

    def take_checkpoints(self, seconds: float) -> None:
        """Set the seconds between two checkpoints of all jobs that start from now on."""
        self._connection.send(seconds)
        self._connection.recv()

    def store_seconds(self) -> float:
        """Return the processor seconds that the threads of the stores have used so far."""
        self._connection.send("seconds")
        seconds: float = self._connection.recv()
        return seconds


@contextmanager
def running(servers: Mapping[str, Mapping[str, Any]]) -> Iterator[Running]:
    """Run servers with these settings."""
    # Like the command line, start with a process that has computed nothing before.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=({name: dict(settings) for name, settings in servers.items()}, theirs)
    )
    process.start()
    try:
        with ExitStack() as stack:
            clients = {}
            for name in servers:
                clients[name] = stack.enter_context(StyleTransferClient(f"127.0.0.1:{ours.recv()}"))
                clients[name].wait_until_ready(timeout=_START_SECONDS)
            yield Running(ours, clients)
        ours.send("stop")
        process.join()
    finally:
        process.kill()


def _serve(settings: dict[str, dict[str, Any]], connection: Connection) -> None:
    async def serve() -> None:
        stop, serving, servers = asyncio.Event(), [], []
        for some in settings.values():
            started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            servers.append(Server(ServerConfig(address="127.0.0.1:0", **some)))
            serving.append(asyncio.create_task(servers[-1].run(stop, started.set_result)))
            connection.send(await started)
        while (order := await asyncio.to_thread(connection.recv)) != "stop":
            if isinstance(order, float):
                for server in servers:
                    server.scheduler.dispatcher.checkpoint_seconds = order
            connection.send(_store_seconds())
        stop.set()
        await asyncio.gather(*serving)

    asyncio.run(serve())


def _store_seconds() -> float:
    # No other clock measures another thread to the microsecond.
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(_STORE_THREADS)]
    times = [Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text() for thread in threads]
    return sum(int(time.split()[0]) for time in times) / 1e9


def measure(
    servers: Mapping[str, Mapping[str, Any]],
    contenders: list[Contender],
    *,
    size: int,
    iterations: int,
    rounds: int,
    folder: Path,
) -> None:
    """Run one job of each contender in every round."""
    (pair,) = pairs(None, 1)
    content, style = pair.write(folder, size)
    with running(servers) as process:
        for client in process.clients.values():
            run_job(client, content, style, size, min(5, iterations))
        for number in range(rounds):
            # Each contender is the first equally often.
            turn = number % len(contenders)
            for contender in (*contenders[turn:], *contenders[:turn]):
                process.take_checkpoints(contender.checkpoint_seconds)
                before = process.store_seconds()
                job = run_job(process.clients[contender.server], content, style, size, iterations)
                contender.seconds.append(job.seconds)
                contender.store_seconds.append(process.store_seconds() - before)


def show(contenders: list[Contender]) -> None:
    """Print the median times, their ratios to the first contender, and the share of the threads of the store."""
    print(f"{'':<20}{'job s':>9}{'to the first':>15}{'error of that':>16}{'store, CPU':>13}")
    first = contenders[0]
    for contender in contenders:
        ratios = [ours / theirs for ours, theirs in zip(contender.seconds, first.seconds, strict=True)]
        shares = [ours / whole for ours, whole in zip(contender.store_seconds, contender.seconds, strict=True)]
        error = _MEDIAN_ERROR * statistics.stdev(ratios) / math.sqrt(len(ratios))
        print(
            f"{contender.name:<20}{statistics.median(contender.seconds):>9.2f}{statistics.median(ratios) - 1:>+15.2%}"
            f"{error:>16.2%}{statistics.median(shares):>13.2%}"
        )
    print(f"Medians; the goal is at most {_GOAL:+.0%}.")


def main() -> None:
    """Measure as the arguments say and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="longest edge in pixels")
    parser.add_argument("--iterations", type=int, default=100, help="iterations of a job")
    parser.add_argument("--rounds", type=int, default=7, help="jobs of each kind")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=ServerConfig().checkpoint_seconds,
        help="seconds between two checkpoints",
    )
    parser.add_argument("--directory", type=Path, help="folder on the disk to measure; a temporary one if omitted")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database; SQLite if omitted")
    args = parser.parse_args()
    if not os.access(_MEMORY, os.W_OK):
        parser.error(f"there is no {_MEMORY} to write to")
    with (
        tempfile.TemporaryDirectory(dir=args.directory) as disk,
        tempfile.TemporaryDirectory(dir=_MEMORY) as memory,
    ):
        servers = {
            "memory": {"data_dir": memory, "min_free_bytes": 0},
            "disk": {
                "data_dir": disk,
                "database": args.database,
                "blobs": f"{disk}/blobs" if args.database else "",
            },
        }
        contenders = [
            Contender("in memory", "memory", _NEVER),
            Contender("on the disk", "disk", _NEVER),
            Contender("with checkpoints", "disk", args.checkpoint_seconds),
        ]
        amounts = {"size": args.size, "iterations": args.iterations, "rounds": args.rounds}
        measure(servers, contenders, **amounts, folder=Path(disk))
        print(f"{args.size} px, {args.iterations} iterations, {args.rounds} rounds")
        show(contenders)


if __name__ == "__main__":
    main()
