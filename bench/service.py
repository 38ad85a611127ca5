"""Benchmarks of the server through the public client: its overhead, its warm start, and how jobs share a device."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nst_client
from nst_client import Preset, StyleTransferClient, TransferOptions

from bench.memory import peak_bytes
from bench.pictures import Pair
from bench.programs import NST, Stage
from bench.server import serving
from bench.task import Task
from bench.timing import seconds_of

_PAUSE = 0.1
"""Seconds between two checks whether a job has ended."""
_ENDLESS = 5000
"""Iterations of a job that is cancelled long before its end."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The times of a job, as its client sees them."""

    seconds: float
    """Seconds from the request to the last byte."""
    first_progress: float
    """Seconds from the request to the first Progress, which follows the first iteration."""
    targets: float
    """Seconds from the start of the job to its first iteration, as the server reports them."""
    iteration: float
    """Seconds of an iteration, as the server reports them."""
    outside: float
    """Share of `seconds` that went neither into targets nor into iterations nor into encoding."""


def measure_jobs(pair: Pair, folder: Path, *, size: int, iterations: int, count: int) -> dict[str, Any]:
    """Run the same job several times on one server."""
    content, style = pair.write(folder, size)
    with serving(folder / "jobs") as server:
        jobs = [run_job(server.client, content, style, size, iterations) for _ in range(count)]
    return {"size": size, "iterations": iterations, "jobs": [dataclasses.asdict(job) for job in jobs]}


def measure_cold_start(stage: Stage, task: Task, jobs: Sequence[Mapping[str, float]], *, rounds: int) -> dict[str, Any]:
    """Start a process for one job, again and again, and compare its first iteration with those of a warm server.

    The process runs the engine without a server, so that it starts as fast as possible. `jobs` are those of a server
    without its first.
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
    with serving(folder / "memory") as server:
        run_job(server.client, content, style, size, iterations)
        peak = peak_bytes(server.process.pid)
    return {"size": size, "peak_bytes": peak}


def measure_throughput(
    pair: Pair, folder: Path, *, size: int, iterations: int, jobs: int, turns: int
) -> dict[str, Any]:
    """Run jobs on one server, in turns: one after the other, then all at once."""
    content, style = pair.write(folder, size)
    with serving(folder / "throughput") as server:

        def run(_: int) -> Job:
            return run_job(server.client, content, style, size, iterations)

        run(0)
        seconds = []
        with ThreadPoolExecutor(jobs) as threads:
            for _ in range(turns):
                serial = seconds_of(lambda: [run(number) for number in range(jobs)])
                at_once = seconds_of(lambda: list(threads.map(run, range(jobs))))
                seconds.append({"serial": serial, "at_once": at_once})
    return {"size": size, "iterations": iterations, "jobs": jobs, "turns": seconds}


def measure_latency(pair: Pair, folder: Path, *, small: int, large: int, iterations: int, jobs: int) -> dict[str, Any]:
    """Run small jobs, each once alone and once while a large one runs."""
    small_paths, large_paths = pair.write(folder, small), pair.write(folder, large)
    with serving(folder / "latency") as server:
        client = server.client

        def run_small() -> float:
            return run_job(client, *small_paths, small, iterations).seconds

        run_small()
        alone, beside = [], []
        # The load of the machine by other programs changes from minute to minute, and meets both kinds alike in turns.
        for _ in range(jobs):
            alone.append(run_small())
            with client.stream(*large_paths, options=_options(large, _ENDLESS)) as stylization:
                next(event for event in stylization if isinstance(event, nst_client.Progress))
                beside.append(run_small())
            # The last step and the encoding of this job must not slow the next one.
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
