"""The time of each operator of torch in an evaluation."""

import dataclasses
from pathlib import Path
from typing import Any

from nst_service.config import ServerConfig
from nst_service.engine.optim.transfer import optimize
from nst_service.runtime import load_models
from torch.profiler import ProfilerActivity, profile

from bench.pictures import Pair
from bench.runners.nst import specification
from bench.task import Task


def measure_profile(task: Task, pair: Pair, folder: Path, *, size: int, evaluations: int) -> dict[str, Any]:
    """Run the engine under torch's profiler and return its operators, slowest first."""
    spec = specification(dataclasses.replace(pair.given(task, folder, size), evaluations=1 + evaluations))
    (model,) = load_models(ServerConfig(device="cpu"))
    iterates = optimize(spec, model)
    next(iterates)  # Computes the targets, and transforms the weights.
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in iterates:
            pass
    operators = [
        {"name": event.key, "calls": event.count, "seconds": event.self_cpu_time_total / 1e6}
        for event in profiler.key_averages()
    ]
    operators.sort(key=lambda operator: operator["seconds"], reverse=True)
    return {"size": size, "evaluations": evaluations, "operators": operators}
