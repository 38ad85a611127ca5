"""Speed and memory of the engine and of the server around it.

    make bench-engine BENCH='--pictures FOLDER --rounds 5'

Every comparison is paired: the programs take turns, each in a process of its own, on the same pictures and weights.
Only ratios count; absolute times are those of the machine and the moment.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nst_client
import psutil
from demo import server

from bench.pictures import prepare
from bench.programs import ENGINE, NEURAL_STYLE, PLAIN, Task, evaluation_seconds, export_weights

_SKIPPED = 3
"""Evaluations at the start of a program that do not count: its memory and its kernels are new."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder with tubingen.jpg and starry_night.jpg")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512], help="longest edges in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each program")
    parser.add_argument("--evaluations", type=int, default=10, help="timed evaluations in a turn")
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        workplace = Path(folder)
        weights = export_weights(workplace)
        for size in args.sizes:
            content, style = prepare(args.pictures, workplace, size=size)
            task = Task(content, style, weights, size, args.evaluations + _SKIPPED)
            figures[f"evaluation_{size}"] = compare_evaluations(task, args.rounds)
        figures["overhead_256"] = measure_overhead(*prepare(args.pictures, workplace, size=256), workplace, args.rounds)
        figures["memory_512"] = measure_memory(*prepare(args.pictures, workplace, size=512), workplace)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2))


def compare_evaluations(task: Task, rounds: int) -> dict[str, list[float]]:
    """Time the programs in turn and print the median of each, and of its ratio to nst round by round."""
    medians: dict[str, list[float]] = {program.name: [] for program in (ENGINE, PLAIN, NEURAL_STYLE)}
    for _ in range(rounds):
        for program in (ENGINE, PLAIN, NEURAL_STYLE):
            medians[program.name].append(statistics.median(evaluation_seconds(program, task, skip=_SKIPPED)))
    print(f"\n{task.size} px, {rounds} rounds of {task.iterations - _SKIPPED} evaluations")
    print(f"{'program':<26}{'s/evaluation':>14}{'nst is x':>10}")
    ours = medians[ENGINE.name]
    for name, seconds in medians.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, seconds, strict=True))
        print(f"{name:<26}{statistics.median(seconds):>14.3f}{ratio:>10.2f}", flush=True)
    return medians


@dataclass(frozen=True)
class Run:
    """What a client saw of a job."""

    seconds: float
    """From the request to the last byte."""
    first_progress: float
    """From the request to the first Progress."""
    longest_silence: float
    """Between two Progress events."""
    outside: float
    """Not spent in optimiser steps, targets or encoding: decoding, events, transport, both processes' Python."""


def measure_overhead(content: Path, style: Path, workplace: Path, rounds: int) -> list[dict[str, float]]:
    """Run jobs of 100 iterations at 256 px on one server and print what is not spent in the engine."""
    with server(workplace / "server.log") as target, nst_client.StyleTransferClient(target) as client:
        runs = [_run(client, content, style, iterations=100, image_size=256) for _ in range(rounds + 1)]
    print(f"\n256 px, 100 iterations through the server, {len(runs)} jobs one after the other")
    for index, run in enumerate(runs, 1):
        print(
            f"job {index}: {run.seconds:.1f} s, outside of the engine {100 * run.outside / run.seconds:.2f} %, "
            f"first progress after {run.first_progress:.2f} s, longest silence {run.longest_silence:.2f} s",
            flush=True,
        )
    return [vars(run) for run in runs]


def measure_memory(content: Path, style: Path, workplace: Path) -> dict[str, float]:
    """Run a job at 512 px on a fresh server and print the most memory that the server held."""
    with server(workplace / "server.log") as target, nst_client.StyleTransferClient(target) as client:
        _run(client, content, style, iterations=25, image_size=512)
        peak = max(_peak_bytes(child) for child in psutil.Process().children() if child.is_running())
    print(f"\n512 px: peak resident memory of the server {peak / 2**20:.0f} MiB")
    return {"peak_bytes": peak}


def _peak_bytes(process: psutil.Process) -> int:
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0


def _run(client: nst_client.StyleTransferClient, content: Path, style: Path, **options: int) -> Run:
    started = time.perf_counter()
    with client.stream(content, style, options=nst_client.TransferOptions(**options)) as stylization:
        progress = [time.perf_counter() for event in stylization if isinstance(event, nst_client.Progress)]
        timings = stylization.result.completed.timings
    seconds = time.perf_counter() - started
    inside = timings.targets_seconds + timings.optimize_seconds + timings.encode_seconds
    return Run(
        seconds=seconds,
        first_progress=progress[0] - started,
        longest_silence=max(after - before for before, after in pairwise(progress)),
        outside=seconds - inside,
    )


if __name__ == "__main__":
    main()
