"""Growth of the cost of an evaluation with the size of the picture, and its share of what the machine can do."""

import dataclasses
import math
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
from bench.timing import matrix_rate

_PIXELS = 2**21
"""Pixels that the timed evaluations of a run work on, all together. A few evaluations of a small picture would be over
in a second, and depend on what else the machine did in it."""
_LARGE = (1, 3)
"""The numbers of skipped and of timed evaluations of a picture with more pixels, so that a run ends the same day."""


def measure_growth(
    stage: Stage, task: Task, pair: Pair, folder: Path, *, sizes: Sequence[int], evaluations: int, rounds: int
) -> dict[str, Any]:
    """Run the engine at several sizes, in turns, and time a dense matrix product between the runs.

    Args:
        stage: the environment of the runs.
        task: the objective.
        pair: the pictures, which are enlarged to every size.
        folder: the folder for the pictures.
        sizes: longest edges in pixels.
        evaluations: the smallest number of timed evaluations. Small pictures get more, large ones only a few.
        rounds: the number of runs of each size.
    """
    results: list[dict[str, Any]] = []
    device = torch.device("cpu")
    peak = matrix_rate(device)
    for _ in range(rounds):
        for size in sizes:
            run = pair.given(task, folder, size)
            spec = specification(run)
            pixels = math.prod(spec.content.size)
            skipped, timed = (SKIPPED, max(evaluations, _PIXELS // pixels)) if pixels <= _PIXELS else _LARGE
            count = skipped + timed
            print(f"{size} px: {count} evaluations", flush=True)
            trace = stage.run(NST, dataclasses.replace(run, evaluations=count))
            peak = max(peak, matrix_rate(device))
            cost = estimate(spec.outline, Memory(available_bytes(device)))
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
