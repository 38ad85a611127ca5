"""Coarse to fine: the sizes that are worked on, one after the other."""

from dataclasses import dataclass

from nst_service.engine.sizes import Size, scaled

_LEAST_EDGE = 64
"""Pixels: a coarser picture says nothing about the strokes of a style."""
_STEP_PIXELS = 8000
"""What a step costs whatever its size, in pixels: weights are transformed, and hundreds of operations begin.

Measured on CPUs, in steps of 64 to 384 px. A GPU does more pixels in the time that this takes it.
"""


@dataclass(frozen=True, slots=True)
class Scale:
    """One of the sizes."""

    size: Size
    iterations: int
    is_last: bool

    @property
    def step_work(self) -> float:
        """What an iteration costs, in pixels."""
        return step_pixels(self.size)

    @property
    def work(self) -> float:
        """What all iterations cost, in pixels."""
        return self.step_work * self.iterations


def step_pixels(size: Size) -> float:
    """Return what a step of a size costs, in pixels: more than it has."""
    return float(size.width * size.height + _STEP_PIXELS)


def most_scales(shortest_edge: int, least_edge: int) -> int:
    """Return how many scales, each twice as large as the one before, pictures have room for.

    Args:
        shortest_edge: of all pictures at full size, in pixels.
        least_edge: that the layers need.
    """
    least = max(_LEAST_EDGE, least_edge)
    return max(1, (shortest_edge // least).bit_length())


def schedule(size: Size, scale_iterations: tuple[int, ...]) -> list[Scale]:
    """Return the scales of a transfer, coarse to fine; the last is the full size."""
    last = len(scale_iterations) - 1
    return [
        Scale(scaled(size, 0.5 ** (last - index)), iterations, index == last)
        for index, iterations in enumerate(scale_iterations)
    ]
