"""The server around the engine, through the public client: what it costs, what it saves, and how jobs share it."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nst_client
import psutil
from demo import server
from nst_client import Preset, StyleTransferClient, TransferOptions

from bench.memory import peak_bytes
from bench.pictures import Pair
from bench.programs import NST, Stage
from bench.task import Task

_PAUSE = 0.1
"""Seconds between two looks whether a job has ended."""
_ENDLESS = 5000
"""Iterations of a job that is cancelled before it has done them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a client saw of a job."""

    seconds: float
    """From the request to the last byte."""
    first_progress: float
    """From the request to the first Progress, which follows the first iteration."""
    targets: float
    """From the start of the job to its first iteration, as the server says."""
    iteration: float
    """Seconds of an iteration, as the server says."""
    outside: float
    """Share of the seconds that went neither into targets nor iterations nor encoding."""


def measure_jobs(pair: Pair, folder: Path, *, size: int, iterations: int, count: int) -> dict[str, Any]:
    """Run the same job several times on one server."""
    content, style = pair.write(folder, size)
    with server(folder / "server.log") as target, StyleTransferClient(target) as client:
        jobs = [run_job(client, content, style, size, iterations) for _ in range(count)]
    return {"size": size, "iterations": iterations, "jobs": [dataclasses.asdict(job) for job in jobs]}


def measure_cold_start(stage: Stage, task: Task, jobs: Sequence[Mapping[str, float]], *, rounds: int) -> dict[str, Any]:
    """Start a process for one job, again and again, and compare its first iteration with those of a warm server.

    The process is the leanest there can be: the engine without a server. The jobs are those of the server that were not
    its first.
    """
    cold = []
    for _ in range(rounds):
        started = time.time()
        trace = stage.run(NST, dataclasses.replace(task, evaluations=1, samples=()))
        ends = trace.first_at - started
        cold.append({"begins": ends - trace.ends[0], "ends": ends})
    warm = [{"begins": job["first_progress"] - job["iteration"], "ends": job["first_progress"]} for job in jobs]
    return {"size": task.size, "cold": cold, "warm": warm}


def measure_memory(pair: Pair, folder: Path, *, size: int, iterations: int) -> dict[str, Any]:
    """Return the most memory that a fresh server held for one job."""
    content, style = pair.write(folder, size)
    with server(folder / "server.log") as target, StyleTransferClient(target) as client:
        run_job(client, content, style, size, iterations)
        peak = max(peak_bytes(child.pid) for child in psutil.Process().children())
    return {"size": size, "peak_bytes": peak}


def measure_throughput(
    pair: Pair, folder: Path, *, size: int, iterations: int, jobs: int, turns: int
) -> dict[str, Any]:
    """Run jobs one after the other, then all at once, in turns, on one server."""
    content, style = pair.write(folder, size)
    with server(folder / "server.log") as target, StyleTransferClient(target) as client:

        def run(_: int) -> Job:
            return run_job(client, content, style, size, iterations)

        run(0)
        seconds = []
        with ThreadPoolExecutor(jobs) as threads:
            for _ in range(turns):
                serial = _seconds(lambda: [run(number) for number in range(jobs)])
                at_once = _seconds(lambda: list(threads.map(run, range(jobs))))
                seconds.append({"serial": serial, "at_once": at_once})
    return {"size": size, "iterations": iterations, "jobs": jobs, "turns": seconds}


def measure_latency(pair: Pair, folder: Path, *, small: int, large: int, iterations: int, jobs: int) -> dict[str, Any]:
    """Run small jobs, each once alone and once while a large one runs."""
    small_paths, large_paths = pair.write(folder, small), pair.write(folder, large)
    with server(folder / "server.log") as target, StyleTransferClient(target) as client:

        def run_small() -> float:
            return run_job(client, *small_paths, small, iterations).seconds

        run_small()
        alone, beside = [], []
        # In turns: what else the machine does changes from minute to minute.
        for _ in range(jobs):
            alone.append(run_small())
            with client.stream(*large_paths, options=_options(large, _ENDLESS)) as stylization:
                next(event for event in stylization if isinstance(event, nst_client.Progress))
                beside.append(run_small())
            # Its last step and its picture are not the next one's.
            while client.info().running_jobs:
                time.sleep(_PAUSE)
    return {
        "small": small,
        "large": large,
        "iterations": iterations,
        "alone": alone,
        "beside": beside,
    }


def run_job(client: StyleTransferClient, content: Path, style: Path, size: int, iterations: int) -> Job:
    """Run a job and take its times."""
    started = time.perf_counter()
    first_progress = 0.0
    with client.stream(content, style, options=_options(size, iterations)) as stylization:
        for event in stylization:
            if isinstance(event, nst_client.Progress) and not first_progress:
                first_progress = time.perf_counter() - started
        completed = stylization.result.completed
    seconds = time.perf_counter() - started
    timings = completed.timings
    return Job(
        seconds=seconds,
        first_progress=first_progress,
        targets=timings.targets_seconds,
        iteration=timings.optimize_seconds / iterations,
        outside=1 - (timings.targets_seconds + timings.optimize_seconds + timings.encode_seconds) / seconds,
    )


def _options(size: int, iterations: int) -> TransferOptions:
    return TransferOptions(preset=Preset.REFERENCE, image_size=size, iterations=iterations)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
