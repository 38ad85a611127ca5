"""How fast a device is, learnt from what it did."""

from nst_service.engine.estimate import Cost


class Pace:
    """Seconds per operation of one device, as an exponential moving average over its steps."""

    _SMOOTHING = 0.1
    _TELLING_FLOPS = 1e10
    """Operations of a step that counts in full. Of a shorter one the more is overhead: half of them, a quarter."""

    def __init__(self) -> None:
        self._seconds_per_flop: float | None = None

    def observe(self, flops: float, seconds: float) -> None:
        """Take note that so many operations took so long."""
        measured = seconds / flops
        if self._seconds_per_flop is None:
            self._seconds_per_flop = measured
        else:
            weight = self._SMOOTHING * min(1.0, flops / self._TELLING_FLOPS) ** 2
            self._seconds_per_flop += weight * (measured - self._seconds_per_flop)

    def seconds(self, flops: float) -> float:
        """Return the expected duration of so many operations; 0 before the first observation."""
        return flops * (self._seconds_per_flop or 0.0)

    def expected(self, cost: Cost) -> float:
        """Return the expected duration of a transfer, its time budget considered."""
        seconds = self.seconds(cost.flops)
        return min(seconds, cost.time_budget_seconds) if cost.time_budget_seconds else seconds
