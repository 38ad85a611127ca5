"""Sizes of pictures and shapes of features: the same two numbers, which libraries name in opposite orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    # Processes that only decode pictures import this module, and torch takes them a second and 200 MB.
    from torch import Tensor


class Size(NamedTuple):
    """The width and height of a picture in pixels, in the order of Pillow."""

    width: int
    height: int

    @classmethod
    def of(cls, pixels: Tensor) -> Size:
        """Return the size of the picture that pixels (..., H, W) hold."""
        height, width = pixels.shape[-2:]
        return cls(width, height)

    @property
    def shape(self) -> Shape:
        """The last two dimensions of pixels of this size."""
        return Shape(self.height, self.width)


class Shape(NamedTuple):
    """The height and width of features or pixels, in the order of a tensor's last dimensions."""

    height: int
    width: int

    @classmethod
    def of(cls, features: Tensor) -> Shape:
        """Return the last two dimensions of features (..., H, W)."""
        height, width = features.shape[-2:]
        return cls(height, width)


def fit(size: Size, longest_edge: int) -> Size:
    """Return the size with this longest edge and the same shape, nowhere below one pixel; 0 keeps the size."""
    if longest_edge == 0:
        return size
    factor = longest_edge / max(size)
    return Size(max(1, round(size.width * factor)), max(1, round(size.height * factor)))


def scaled(size: Size, factor: float) -> Size:
    """Return the size times a factor, with the same shape, nowhere below one pixel."""
    return fit(size, max(1, round(factor * max(size))))


def halved(shape: Shape) -> Shape:
    """Return half of a shape, rounded up."""
    return Shape(-(-shape.height // 2), -(-shape.width // 2))
