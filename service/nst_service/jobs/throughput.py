"""The measured speed of a device."""

from nst_service.engine.estimate import Cost


class Throughput:
    """Seconds per operation of one device, as an exponential moving average over its steps."""

    _SMOOTHING = 0.1
    _TELLING_WORK = 1e11
    """Operations from which a step counts fully. Overhead distorts smaller ones; half of the work counts a quarter."""

    def __init__(self, seconds_per_operation: float | None = None) -> None:
        self._seconds_per_operation = seconds_per_operation

    @property
    def seconds_per_operation(self) -> float:
        """The expected seconds for one operation; 0 before the first observation."""
        return self._seconds_per_operation or 0.0

    def observe(self, work: float, seconds: float) -> None:
        """Add the measurement of a step: its work in operations (see `step_work`) and its duration in seconds."""
        measured = seconds / work
        if self._seconds_per_operation is None:
            self._seconds_per_operation = measured
        else:
            weight = self._SMOOTHING * min(1.0, work / self._TELLING_WORK) ** 2
            self._seconds_per_operation += weight * (measured - self._seconds_per_operation)

    def seconds(self, work: float) -> float:
        """Return the expected seconds for this number of operations; 0 before the first observation."""
        return work * self.seconds_per_operation

    def expected(self, cost: Cost) -> float:
        """Return the expected seconds for a transfer, at most its time budget."""
        seconds = self.seconds(cost.work)
        return min(seconds, cost.time_budget_seconds) if cost.time_budget_seconds else seconds
