"""The time of a transfer: what was spent, what further steps are expected to take, and what the budget allows."""

import math
import time
from collections.abc import Sequence

from nst_service.engine.optim.stage import Stage
from nst_service.engine.scales import Scale


class Stopwatch:
    """Counts seconds of work."""

    def __init__(self, seconds: float = 0.0) -> None:
        """Begin to count, from so many seconds on."""
        self._seconds = seconds
        self._resumed = time.perf_counter()

    def pause(self) -> float:
        """Stop counting and return the seconds until now."""
        self._seconds += time.perf_counter() - self._resumed
        return self._seconds

    def resume(self) -> None:
        """Go on counting."""
        self._resumed = time.perf_counter()


class TimePlan:
    """The expected times of a transfer over its scales. Every step of a scale is expected to take as long.

    `elapsed` is always the seconds of work since the first step began.
    """

    def __init__(self, scales: Sequence[Scale], budget_seconds: float, excess_seconds: float):
        """Plan a transfer.

        Args:
            scales: scales, coarse to fine.
            budget_seconds: seconds that all steps may take; 0 for as long as it takes.
            excess_seconds: seconds of work that would not have been spent at these sizes (see `Snapshot`).
        """
        self._scales = scales
        self._total_work = sum(scale.work for scale in scales)
        self._budget_seconds = budget_seconds
        self.excess_seconds = excess_seconds

    def step_seconds(self, stage: Stage, elapsed: float) -> float:
        """Return the expected seconds of the next step of a stage."""
        return self._seconds_per_pixel(stage, elapsed) * stage.scale.step_work

    def remaining_seconds(self, stage: Stage, elapsed: float) -> float:
        """Return the expected seconds of work until the last iteration, or until the budget is spent."""
        seconds = self._seconds_per_pixel(stage, elapsed) * (self._total_work - self._work_until(stage))
        return min(seconds, max(0.0, self._budget_seconds - elapsed)) if self._budget_seconds else seconds

    def allows_another_step(self, stage: Stage, elapsed: float) -> bool:
        """Return whether the budget of a stage is expected to suffice for its next step."""
        # A scale that ended early leaves its time to the next.
        planned = sum(scale.work for scale in self._scales[: stage.number])
        allowed = self._budget_seconds * planned / self._total_work or math.inf
        return elapsed + self.step_seconds(stage, elapsed) <= allowed

    def _work_until(self, stage: Stage) -> float:
        """Return the work until now, in pixels; a scale that ended early counts as if it had not."""
        coarser = sum(scale.work for scale in self._scales[: stage.number - 1])
        return coarser + stage.done * stage.scale.step_work

    def _seconds_per_pixel(self, stage: Stage, elapsed: float) -> float:
        """Return the seconds that a pixel of work takes."""
        return (elapsed - self.excess_seconds) / self._work_until(stage)
