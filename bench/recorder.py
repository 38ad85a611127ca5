"""Measures the time of a program from within its process, and keeps some of its pictures.

No program is changed for that: torch has a hook that runs before each step of an optimiser. The clock starts with the
first evaluation, so that imports, weights, targets and compilation do not count. It stops while a picture is kept.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from bench.memory import peak_bytes
from bench.task import Task

Closure = Callable[[], Any]


class Recorder:
    """The times and pictures of one run."""

    def __init__(self, task: Task):
        self._task = task
        self._samples = frozenset(task.samples)
        self._started: float | None = None
        self._paused = 0.0
        self._ends: list[float] = []
        self._losses: dict[int, float | None] = {}
        self._first_at = 0.0

    def begin(self, ago: float = 0.0) -> None:
        """Start the clock if it does not run yet, as if that had happened some seconds ago."""
        if self._started is None:
            self._started = time.perf_counter() - ago

    def evaluated(self, picture: Callable[[], Tensor], loss: Any = None) -> None:
        """Record the end of an evaluation.

        Args:
            picture: returns the picture that was evaluated, (1, 3, H, W), RGB, 0 to 1 but not clamped.
            loss: the loss that the program reports, as a number or something that converts to a float.
        """
        now = time.perf_counter()
        assert self._started is not None
        self._ends.append(now - self._started - self._paused)
        count = len(self._ends)
        self._first_at = self._first_at or time.time()
        if count in self._samples:
            self._losses[count] = None if loss is None else float(loss)
            torch.save(picture().detach().to("cpu", torch.float32).contiguous(), self._path(f"{count}.pt"))
            self._paused += time.perf_counter() - now

    def finish(self) -> None:
        """Write the times and the peak memory of this process."""
        trace = {
            "ends": self._ends,
            "losses": list(self._losses.items()),
            "first_at": self._first_at,
            "peak_bytes": peak_bytes(),
        }
        self._path("trace.json").write_text(json.dumps(trace))

    def _path(self, name: str) -> Path:
        return Path(self._task.folder) / name


def observe(recorder: Recorder, to_picture: Callable[[Tensor], Tensor], last_loss: Closure = lambda: None) -> None:
    """Record every evaluation of the optimiser that this process is about to use.

    Args:
        recorder: the recorder of this run.
        to_picture: converts the parameter of the optimiser to a picture (see `Recorder.evaluated`).
        last_loss: returns the last loss, for programs whose optimiser has no closure.
    """

    def before_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        pixels: Tensor = optimizer.param_groups[0]["params"][0]
        closure: Closure | None = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:  # The evaluation is done already.
            recorder.evaluated(lambda: to_picture(pixels), last_loss())
            return None

        def observed() -> Any:
            recorder.begin()
            loss = closure()
            recorder.evaluated(lambda: to_picture(pixels), loss)
            return loss

        return (optimizer, observed), {}

    register_optimizer_step_pre_hook(before_step)
