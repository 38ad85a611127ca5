"""The scales of a transfer: the sizes that it works on one after the other, coarse to fine."""

from dataclasses import dataclass

from nst_service.engine.sizes import Size, scaled

_LEAST_EDGE = 64
"""Pixels of the shortest edge: a coarser picture says nothing about the strokes of a style."""
_STEP_PIXELS = 8000
"""The cost of a step that does not depend on its size, in pixels: weights are transformed, and hundreds of operations
begin. Measured on CPUs, in steps of 64 to 384 px. A GPU computes more pixels than that in the same time."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One size of a transfer, and the steps that it takes there."""

    size: Size
    """The size of the picture at this scale."""
    iterations: int
    """Steps at this scale."""
    is_last: bool
    """Whether this is the full size."""

    @property
    def step_work(self) -> float:
        """The cost of one step, in pixels."""
        return step_pixels(self.size)

    @property
    def work(self) -> float:
        """The cost of all steps, in pixels."""
        return self.step_work * self.iterations


def step_pixels(size: Size) -> float:
    """Return the cost of a step at a size, in pixels: more than the size has."""
    return float(size.width * size.height + _STEP_PIXELS)


def most_scales(shortest_edge: int, least_edge: int) -> int:
    """Return how many scales, each twice as large as the one before, pictures have room for.

    Args:
        shortest_edge: the shortest edge of all pictures at full size, in pixels.
        least_edge: the shortest edge that the layers need, in pixels.
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
