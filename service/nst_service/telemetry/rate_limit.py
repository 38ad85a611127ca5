"""A limit on the number of messages of each kind. This module is pure."""

from collections.abc import Iterator
from dataclasses import dataclass

_BURST = 10
"""The number of messages of a kind in a period."""
_PERIOD_SECONDS = 60.0
"""Seconds of a period, which begins with its first message."""


@dataclass
class _Period:
    began_at: float
    count: int = 0


class RateLimit:
    """Allows the first messages of each kind in a minute, and counts the others."""

    def __init__(self) -> None:
        self._periods: dict[str, _Period] = {}

    def allows(self, kind: str, now: float) -> bool:
        """Count a message of a kind at a time in seconds, and return whether it may be logged."""
        period = self._periods.setdefault(kind, _Period(now))
        period.count += 1
        return period.count <= _BURST

    def ended(self, now: float) -> Iterator[tuple[str, int]]:
        """End the periods that are over, and yield the kinds with messages that were not allowed, and their numbers."""
        over = [kind for kind, period in self._periods.items() if now - period.began_at >= _PERIOD_SECONDS]
        for kind in over:
            period = self._periods.pop(kind)
            if period.count > _BURST:
                yield kind, period.count - _BURST
