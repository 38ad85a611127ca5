"""How the cost of an evaluation grows with the picture, and what share of the machine it uses."""

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nst_service.engine.devices import available_bytes
from nst_service.engine.estimate import estimate, step_flops
from nst_service.engine.memory.fit import Memory

from bench.pictures import Pair
from bench.programs import NST, Stage
from bench.race import SKIPPED, evaluation_seconds
from bench.runners.nst import specification
from bench.task import Task

_EDGE = 2048
_PRODUCTS = 8
_PIXELS = 2**21
"""That the timed evaluations of a run work on: of small pictures, a disturbed second would decide about few."""
_LARGE = (1, 3)
"""Evaluations that are skipped and that are timed of pictures with more pixels, so that a run ends the same day."""


def measure_growth(
    stage: Stage, task: Task, pair: Pair, folder: Path, *, sizes: Sequence[int], evaluations: int, rounds: int
) -> dict[str, Any]:
    """Run the engine at several sizes, in turns, and a dense matrix product between them.

    Args:
        stage: where programs run.
        task: the objective.
        pair: enlarged to every size.
        folder: for the pictures.
        sizes: longest edges in pixels.
        evaluations: timed ones, at least; large pictures get a few only, small ones more.
        rounds: runs of each size.
    """
    results: list[dict[str, Any]] = []
    peak = matrix_product_flops()
    for _ in range(rounds):
        for size in sizes:
            run = pair.given(task, folder, size)
            spec = specification(run)
            pixels = math.prod(spec.content.size)
            skipped, timed = (SKIPPED, max(evaluations, _PIXELS // pixels)) if pixels <= _PIXELS else _LARGE
            count = skipped + timed
            print(f"{size} px: {count} evaluations", flush=True)
            trace = stage.run(NST, dataclasses.replace(run, evaluations=count))
            peak = max(peak, matrix_product_flops())
            cost = estimate(spec, Memory(available_bytes(torch.device("cpu"))))
            results.append(
                {
                    "size": size,
                    "pixels": pixels,
                    "tile": cost.tile_size,
                    "flops": step_flops(spec.options, spec.content.size, cost.tile_size),
                    "evaluation_seconds": evaluation_seconds(trace.ends, skipped),
                    "peak_bytes": trace.peak_bytes,
                }
            )
    return {"sizes": list(sizes), "runs": results, "peak_flops": peak}


def matrix_product_flops() -> float:
    """Return the operations per second that a dense float32 matrix product reaches here: the most there is to have."""
    left, right = torch.rand(2, _EDGE, _EDGE)
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        torch.mm(left, right)
        seconds.append(time.perf_counter() - started)
    return 2 * _EDGE**3 / min(seconds)
