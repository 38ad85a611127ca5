"""Starts servers that can be killed, or have faults: python -m tests.reliability.launcher.

It imports and loads everything once. Every server is a fork of it, and so is there in no time. Orders come on stdin,
one JSON object on a line, and each is answered by one on stdout. When stdin ends, so do the servers.
"""

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from nst_service import memory_budget as memory_budget_module
from nst_service import runtime as runtime_module
from nst_service import server as server_module
from nst_service.config import ServerConfig
from nst_service.engine.devices import available_bytes
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.optim.transfer import Iterate, TargetProgress, transfer
from nst_service.jobs import errors as errors_module
from nst_service.jobs import events as events_module
from nst_service.jobs import lost_runs as lost_runs_module
from nst_service.jobs import run as run_module
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs import sink as sink_module
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.worker import DeviceWorker
from nst_service.rpc import delivery as delivery_module
from nst_service.server import serve
from nst_service.store.store import Store

_CHUNK_BYTES = 2000
"""The size of a chunk in bytes. Even small pictures come in several chunks."""
_DEVICE_FAILED = 3
_FOR_EVER = 1e6


def _set_clock(seconds: float) -> None:
    """Set the time of day to another time."""
    real = time.time
    time.time = lambda: real() + seconds
    # Bound when the module was imported.
    (Store.__init__.__kwdefaults__ or {})["clock"] = time.time


def _fail_device(step: int) -> None:
    """Make the device fail in a step of every job."""
    _before_step(step, torch.AcceleratorError, "an illegal memory access was encountered")


def _have_little_memory(step: int) -> None:
    """Make memory run out in a step of every job that processes its picture as a whole."""
    _before_step(step, MemoryError, "", only_whole=True)


def _have_no_memory(step: int) -> None:
    """Make memory run out in a step of every job."""
    _before_step(step, MemoryError, "")


def _have_memory_up_to(edge: int) -> None:
    """Make memory run out in the fourth step of every job with a larger picture."""

    def fail() -> None:
        raise MemoryError

    def failing(spec: Any, *rest: Any) -> Iterator[TargetProgress | Iterate]:
        return _with((spec, *rest), 4, fail) if max(spec.content.size) > edge else transfer(spec, *rest)

    run_module.transfer = failing


def _die(step: int) -> None:
    """Make the process die in a step of every job."""
    run_module.transfer = lambda *arguments: _with(arguments, step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def _stall(step: int) -> None:
    """Keep every job from its first step."""
    run_module.transfer = lambda *arguments: _with(arguments, step, lambda: time.sleep(_FOR_EVER))


def _before_step(step: int, error: type[Exception], message: str, *, only_whole: bool = False) -> None:
    def fail() -> None:
        raise error(message)

    def failing(spec: Any, model: Any, tile: int | None, *rest: Any) -> Iterator[TargetProgress | Iterate]:
        if only_whole and tile is not None:
            return transfer(spec, model, tile, *rest)
        return _with((spec, model, tile, *rest), step, fail)

    run_module.transfer = failing


def _with(arguments: tuple[Any, ...], step: int, act: Callable[[], None]) -> Iterator[TargetProgress | Iterate]:
    """Yield the steps of `transfer`, and call an action before one of them, counted from the lease of the job."""
    with contextlib.closing(transfer(*arguments)) as steps:
        for each in steps:
            if isinstance(each, Iterate) and each.iteration == step:
                act()
            yield each


def _die_before_keeping_a_smaller_size(seconds: float) -> None:
    """Make the process die while a smaller size is being stored, so late that a wrong order would be seen."""
    note = AsyncJobStore.append

    async def dying(job_store: AsyncJobStore, job: Job, logged: LoggedEvent) -> None:
        if isinstance(logged.event, events_module.Reduced):
            await asyncio.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)
        await note(job_store, job, logged)

    AsyncJobStore.append = dying


def _forgive(deaths: int) -> None:
    """Set the number of servers in a row that may die with a job before the job fails."""
    lost_runs_module._MAX_LOST_RUNS = deaths


def _ask_for_signs_of_life(seconds: float) -> None:
    """Set the seconds after which a silent client counts as vanished."""
    server_module._KEEPALIVE_SECONDS = server_module._KEEPALIVE_PATIENCE = seconds


def _close_idle_connections_after(seconds: float) -> None:
    """Set the seconds after which a connection without a call is closed."""
    server_module._IDLE_SECONDS = seconds


def _send_chunks_of(size: int) -> None:
    """Set the size of a chunk in bytes."""
    events_module.CHUNK_BYTES = size


def _deliver_within(limits: list[float]) -> None:
    """Set the memory in bytes of the messages that are being sent, and the patience in seconds with slow clients."""
    memory_budget_module._LEAST_DELIVERY = int(limits[0])
    memory_budget_module._DELIVERY, delivery_module._PATIENCE = (16, int(limits[0])), limits[1]


def _make_pictures_of(size: int) -> None:
    """Add this number of bytes to the picture of every job."""
    encode = run_module.encode
    run_module.encode = lambda *arguments, **options: encode(*arguments, **options) + os.urandom(size)


def _lease(seconds: float) -> None:
    """Set the seconds without a heartbeat after which servers count as dead."""
    runtime_module._LEASE_SECONDS = seconds


_FAULTS: Mapping[str, Callable[[Any], None]] = MappingProxyType(
    {
        "clock": _set_clock,
        "device": _fail_device,
        "little_memory": _have_little_memory,
        "no_memory": _have_no_memory,
        "memory_up_to": _have_memory_up_to,
        "death": _die,
        "death_of_a_smaller_size": _die_before_keeping_a_smaller_size,
        "stall": _stall,
        "forgiven_deaths": _forgive,
        "keepalive": _ask_for_signs_of_life,
        "idle": _close_idle_connections_after,
        "chunk": _send_chunks_of,
        "delivery": _deliver_within,
        "picture": _make_pictures_of,
        "user": os.seteuid,
        "environment": os.environ.update,
        "lease": _lease,
    }
)


def _serve(settings: dict[str, Any], faults: dict[str, Any], log: str) -> int:
    """Run a server and return its exit code, which is that of the command line."""
    with open(log, "ab") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for name, value in faults.items():
        _FAULTS[name](value)
    server_module.logging.basicConfig(level="INFO", format="%(asctime)s %(process)d %(levelname)s: %(message)s")
    try:
        ending = asyncio.run(serve(ServerConfig(**settings)))
    except BaseException:
        traceback.print_exc()
        return 1
    return _DEVICE_FAILED if ending.device_failed else 0


def _quicken() -> None:
    """Make servers start without a warm-up, and report every step."""
    weights = load_weights("caffe")
    runtime_module.load_weights = lambda *_: weights
    # What torch loads when it is first used, it has loaded then.
    DeviceWorker(Vgg19(weights, "cpu")).warm_up()

    def warm_up(worker: DeviceWorker) -> None:
        worker.memory = available_bytes(worker.device)

    DeviceWorker.warm_up = warm_up
    run_module.PROGRESS_INTERVAL = 0.0
    events_module.CHUNK_BYTES = _CHUNK_BYTES
    scheduler_module._HOUSEKEEPING_SECONDS = 0.1
    scheduler_module._CLEANING_SECONDS = 0.1
    scheduler_module._POLL_SECONDS = 0.05
    scheduler_module._LIVE_SECONDS = 0.05
    errors_module.UNAVAILABLE_RETRY_SECONDS = 0.05
    # Longer than the servers live that the tests kill at their start.
    lost_runs_module._SUSPECT_SECONDS = 2.0
    # Checkpoints as often as a test wants them, whatever they cost.
    sink_module._CHECKPOINT_SHARE = 1e9


def main() -> None:
    # Threads of a parallel loop would be missing in the forks.
    torch.set_num_threads(1)
    _quicken()
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            running.discard(order["wait"])
            answer = os.waitstatus_to_exitcode(status)
        else:
            if "s3:" in order["settings"].get("blobs", ""):
                # It takes a second to load.
                importlib.import_module("s3fs")
            answer = os.fork()
            if answer == 0:
                os.close(0)
                code = _serve(order["settings"], order["faults"], order["log"])
                os._exit(code)
            running.add(answer)
        print(json.dumps(answer), flush=True)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
