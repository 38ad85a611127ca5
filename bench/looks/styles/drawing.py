"""A pen drawing: a village on hills. It serves as content."""

import numpy as np
from PIL import Image, ImageDraw

_OVERSAMPLING = 3
_HOUSES = ((0.16, 0.58, 9.0), (0.33, 0.62, 10.0), (0.70, 0.62, 11.0), (0.87, 0.66, 9.0), (0.45, 0.74, 12.0))
"""Where the houses stand, as shares of width and height, and how large they are."""
_TREES = ((0.06, 0.72, 8.0), (0.26, 0.74, 6.0), (0.61, 0.76, 6.5), (0.96, 0.76, 9.0), (0.79, 0.80, 5.0))
"""Where the trees stand, and how large they are."""
_PAPER, _PEN = "#fbfaf5", "#22262e"


class _Pen:
    """A pen that does not hit its points exactly. Lengths are in hundredths of the scale of the picture."""

    def __init__(self, size: tuple[int, int], random: np.random.Generator):
        self.unit = np.sqrt(size[0] * size[1]) / 100
        self.image = Image.new("RGB", size, _PAPER)
        self.right, self.bottom = size[0] / self.unit, size[1] / self.unit
        self.random = random
        self._draw = ImageDraw.Draw(self.image)

    def line(self, points: np.ndarray, width: float = 0.28) -> None:
        """Draw a line through points (N, 2)."""
        steps = np.linspace(0, len(points) - 1, 12 * (len(points) - 1) + 1)
        dense = np.stack([np.interp(steps, np.arange(len(points)), points[:, axis]) for axis in (0, 1)], 1)
        dense += 0.055 * self.random.normal(size=dense.shape)
        pixels = [tuple(point) for point in dense * self.unit]
        self._draw.line(pixels, fill=_PEN, width=max(1, round(width * self.unit)), joint="curve")

    def blank(self, points: np.ndarray) -> None:
        """Erase what lies within a polygon, because something in front of it comes there."""
        self._draw.polygon([tuple(point) for point in points * self.unit], fill=_PAPER)

    def outline(self, *points: tuple[float, float]) -> None:
        """Draw a closed polygon in front of what is there."""
        polygon = np.array(points)
        self.blank(polygon)
        self.line(np.concatenate([polygon, polygon[:1]]))

    def hatch(self, corner: np.ndarray, down: np.ndarray, across: np.ndarray, distance: float) -> None:
        """Hatch a parallelogram with lines along `down`."""
        for share in np.arange(distance / 2, 1, distance):
            start = corner + share * across
            self.line(np.stack([start + 0.04 * down, start + self.random.uniform(0.85, 0.98) * down]), 0.14)


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Draw the village. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    pen = _Pen((width * _OVERSAMPLING, height * _OVERSAMPLING), random)
    x = np.linspace(-2, pen.right + 2, 60)
    for base, swing in ((0.34, 4.0), (0.42, 3.0), (0.52, 2.0)):
        hill = base * pen.bottom + swing * np.sin(x / 15 + random.uniform(0, 6)) + 0.6 * np.sin(x / 5)
        pen.blank(np.concatenate([np.stack([x, hill], 1), [(pen.right + 2, pen.bottom), (-2, pen.bottom)]]))
        pen.line(np.stack([x, hill], 1))
        for at in random.uniform(0, pen.right, 16):
            y = np.interp(at, x, hill) + random.uniform(0.5, 5)
            pen.line(np.array([(at, y), (at + 2.5, y + 1.2)]), 0.14)
    _sun(pen)
    _church(pen, 0.52 * pen.right, 0.60 * pen.bottom)
    for share, base, size in _HOUSES:
        _house(pen, share * pen.right, base * pen.bottom, size)
    for share, base, size in _TREES:
        _tree(pen, share * pen.right, base * pen.bottom, size)
    _fence_and_path(pen)
    return pen.image.resize((width, height), Image.Resampling.LANCZOS)


def _sun(pen: _Pen) -> None:
    x, y, turn = 0.80 * pen.right, 0.14 * pen.bottom, np.linspace(0, 2 * np.pi, 28)
    pen.line(np.stack([x + 4 * np.cos(turn), y + 4 * np.sin(turn)], 1))
    for angle in turn[::2]:
        ray = np.array([np.cos(angle), np.sin(angle)])
        pen.line(np.array([(x, y) + 5 * ray, (x, y) + 7.5 * ray]), 0.2)
    for at_x, at_y in ((0.20, 0.12), (0.42, 0.18)):
        cloud = np.linspace(np.pi, 2 * np.pi, 10)
        for step, size in enumerate((2.4, 3.4, 2.6)):
            middle = at_x * pen.right + 4.2 * step
            pen.line(np.stack([middle + size * np.cos(cloud), at_y * pen.bottom + size * np.sin(cloud)], 1), 0.2)
        pen.line(
            np.array([(at_x * pen.right - 2.4, at_y * pen.bottom), (at_x * pen.right + 11, at_y * pen.bottom)]), 0.2
        )


def _house(pen: _Pen, x: float, y: float, size: float) -> None:
    wall, roof, depth = 0.62 * size, 0.55 * size, 0.75 * size
    pen.outline((x, y), (x, y - wall), (x + size / 2, y - wall - roof), (x + size, y - wall), (x + size, y))
    side = (x + size, y - wall), (x + size + depth, y - wall - 0.12 * size)
    pen.outline((x + size, y), side[0], side[1], (x + size + depth, y - 0.15 * size))
    pen.hatch(np.array(side[0]), np.array([0, wall]), np.array([depth, -0.13 * size]), 0.11)
    ridge = (x + size / 2, y - wall - roof), (x + size / 2 + depth, y - wall - roof - 0.10 * size)
    pen.outline(side[0], ridge[0], ridge[1], side[1])
    pen.hatch(np.array(ridge[0]), np.array(side[0]) - ridge[0], np.array(ridge[1]) - ridge[0], 0.08)
    pen.outline(
        (x + 0.40 * size, y),
        (x + 0.40 * size, y - 0.36 * size),
        (x + 0.60 * size, y - 0.36 * size),
        (x + 0.60 * size, y),
    )
    for left in (0.12, 0.70):
        low, high = y - 0.30 * size, y - 0.50 * size
        edges = x + left * size, x + (left + 0.18) * size
        pen.outline((edges[0], low), (edges[0], high), (edges[1], high), (edges[1], low))
        pen.line(np.array([(sum(edges) / 2, low), (sum(edges) / 2, high)]), 0.14)


def _church(pen: _Pen, x: float, y: float) -> None:
    pen.outline((x, y), (x, y - 19), (x + 6, y - 19), (x + 6, y))
    pen.outline((x - 0.7, y - 19), (x + 3, y - 33), (x + 6.7, y - 19))
    pen.hatch(np.array([x + 3.4, y - 32.0]), np.array([0.0, 13.0]), np.array([3.0, 9.0]), 0.2)
    pen.line(np.array([(x + 3, y - 33), (x + 3, y - 36.5)]))
    pen.line(np.array([(x + 2, y - 35.3), (x + 4, y - 35.3)]))
    turn = np.linspace(0, 2 * np.pi, 18)
    pen.line(np.stack([x + 3 + 1.5 * np.cos(turn), y - 15.5 + 1.5 * np.sin(turn)], 1))
    pen.line(np.array([(x + 3, y - 16.6), (x + 3, y - 15.5), (x + 3.8, y - 15.2)]), 0.2)
    pen.outline((x + 2, y - 6), (x + 2, y - 10), (x + 3, y - 11), (x + 4, y - 10), (x + 4, y - 6))
    pen.hatch(np.array([x + 4.3, y - 19.0]), np.array([0.0, 19.0]), np.array([1.7, 0.0]), 0.25)
    pen.outline((x + 6, y), (x + 6, y - 9), (x + 18, y - 9), (x + 18, y))
    pen.outline((x + 6, y - 9), (x + 8, y - 14), (x + 20, y - 14), (x + 18, y - 9))
    pen.hatch(np.array([x + 8.0, y - 14.0]), np.array([-2.0, 5.0]), np.array([12.0, 0.0]), 0.07)
    for left in (8.0, 11.5, 15.0):
        pen.outline(
            (x + left, y - 2),
            (x + left, y - 6),
            (x + left + 0.9, y - 7),
            (x + left + 1.8, y - 6),
            (x + left + 1.8, y - 2),
        )


def _tree(pen: _Pen, x: float, y: float, size: float) -> None:
    for side in (-1, 1):
        pen.line(np.array([(x + side * 0.10 * size, y), (x + side * 0.07 * size, y - 0.6 * size)]))
    turn = np.linspace(0, 2 * np.pi, 70)
    bumps = 1 + 0.12 * np.sin(9 * turn) + 0.05 * np.sin(23 * turn)
    crown = np.stack([x + 0.55 * size * bumps * np.cos(turn), y - 1.15 * size + 0.62 * size * bumps * np.sin(turn)], 1)
    pen.blank(crown)
    pen.line(crown)
    for _ in range(int(5 * size)):
        angle, radius = pen.random.uniform(-0.9, 1.4), np.sqrt(pen.random.uniform(0.05, 0.85))
        at = np.array([x + 0.5 * size * radius * np.cos(angle), y - 1.15 * size + 0.56 * size * radius * np.sin(angle)])
        scribble = np.cumsum(pen.random.normal(0, 0.05 * size, (5, 2)), 0)
        pen.line(at + scribble, 0.16)


def _fence_and_path(pen: _Pen) -> None:
    y = np.linspace(0.78 * pen.bottom, pen.bottom + 1, 20)
    for side, spread in ((-1, 0.42), (1, 0.50)):
        bend = 0.55 * pen.right + 4 * np.sin((y - y[0]) / 8) + side * (1.5 + spread * (y - y[0]))
        pen.line(np.stack([bend, y], 1))
    for share in np.linspace(0.02, 0.36, 12):
        x, base = share * pen.right, 0.93 * pen.bottom + 1.2 * np.sin(9 * share)
        pen.outline((x, base), (x, base - 6), (x + 0.7, base - 7), (x + 1.4, base - 6), (x + 1.4, base))
    for lift in (2.0, 4.6):
        pen.line(np.array([(0.0, 0.93 * pen.bottom - lift), (0.39 * pen.right, 0.93 * pen.bottom - lift)]))
    for _ in range(90):
        x, y_at = pen.random.uniform(0, pen.right), pen.random.uniform(0.80, 0.99) * pen.bottom
        pen.line(np.array([(x, y_at), (x + 0.3, y_at - 1.2)]), 0.14)
        pen.line(np.array([(x + 0.4, y_at), (x + 1.1, y_at - 0.9)]), 0.14)
