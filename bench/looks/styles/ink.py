"""An ink wash painting: mountains in mist, a boat, and bamboo in front of them, on rice paper, with a red seal."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from bench.looks.styles.noise import Array, rgb, ridge, smooth_noise

_PAPER, _SEAL = rgb("#eee6d3"), rgb("#b3261e")
_INK = rgb("#1b1d22")
_OVERSAMPLING = 2


class _Sheet:
    """Paper that ink is laid on. `density` (H, W) is how much of it; the more, the darker."""

    def __init__(self, rows: int, columns: int, random: np.random.Generator):
        self.unit = np.sqrt(rows * columns) / 100
        self.y, self.x = np.mgrid[0:rows, 0:columns] / self.unit
        self.right, self.bottom = columns / self.unit, rows / self.unit
        self.density = np.zeros((rows, columns))
        self.random = random
        self.blotches = smooth_noise((rows, columns), 2.2 * self.unit, random)
        self.fibres = smooth_noise((rows, columns), (0.12 * self.unit, 0.9 * self.unit), random)

    def stroke(self, points: Array, widths: Array, ink: float, dryness: float = 0.0) -> None:
        """Lay one stroke of a round brush along points (N, 2) in (x, y); a dry brush leaves streaks of paper."""
        points, widths = _dense(points, widths)
        low, high = points.min(0) - widths.max() - 1, points.max(0) + widths.max() + 1
        (left, top), (right, bottom) = (np.maximum(low * self.unit, 0)).astype(int), (high * self.unit).astype(int) + 1
        y, x = self.y[top:bottom, left:right], self.x[top:bottom, left:right]
        if not x.size:
            return
        nearest, across, along = np.full(x.shape, np.inf), np.zeros(x.shape), np.zeros(x.shape)
        tangents = np.gradient(points, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True) + 1e-9
        for index, ((at_x, at_y), (t_x, t_y), width) in enumerate(zip(points, tangents, widths, strict=True)):
            distance = np.hypot(x - at_x, y - at_y) / max(width, 1e-3)
            closer = distance < nearest
            nearest = np.where(closer, distance, nearest)
            across = np.where(closer, ((y - at_y) * t_x - (x - at_x) * t_y) / max(width, 1e-3), across)
            along = np.where(closer, index / len(points), along)
        body = np.clip((1 - nearest) * 6, 0, 1)
        # Ink gathers at the edge of a wet stroke.
        body *= 0.72 + 0.28 * np.clip(nearest, 0, 1) ** 3
        if dryness:
            bristles = self.random.normal(size=64)
            streak = np.interp((across + 1) * 31.5, np.arange(64), ndimage.gaussian_filter1d(bristles, 0.8))
            dry = streak + 0.5 * self.fibres[top:bottom, left:right] > 1.1 - dryness * (0.5 + along)
            body = np.where(dry, 0.12 * body, body)
        self.density[top:bottom, left:right] = np.maximum(self.density[top:bottom, left:right], ink * body)


def _dense(points: Array, widths: Array) -> tuple[Array, Array]:
    """Return the points of a stroke and its widths there, close enough together for a line without gaps."""
    walked = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    places = np.linspace(0, walked[-1], max(2, int(walked[-1] / (0.35 * max(widths.mean(), 0.1)))))
    dense = np.stack([np.interp(places, walked, points[:, axis]) for axis in (0, 1)], 1)
    return dense, np.interp(places, walked, widths)


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Paint with ink. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    sheet = _Sheet(height * _OVERSAMPLING, width * _OVERSAMPLING, random)
    for base, peak, ink in ((0.34, 9.0, 0.20), (0.45, 10.0, 0.36), (0.60, 7.0, 0.62)):
        _mountains(sheet, base, peak, ink)
    _boat(sheet)
    for share, tilt, ink in ((0.10, 0.05, 0.75), (0.19, -0.03, 1.0), (0.93, -0.06, 0.85)):
        _bamboo(sheet, share, tilt, ink)
    transmitted = np.exp(-2.3 * sheet.density * (1 + 0.10 * sheet.blotches))
    paper = _PAPER * (1 + 0.012 * sheet.fibres[..., None] + 0.012 * sheet.blotches[..., None])
    colours = _INK + (paper - _INK) * transmitted[..., None]
    seal = _seal(sheet)
    colours = np.where(seal[..., None], _SEAL * 0.9 + 0.1 * colours, colours)
    picture = Image.fromarray((255 * np.clip(colours, 0, 1)).round().astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _mountains(sheet: _Sheet, base: float, peak: float, ink: float) -> None:
    """Lay a range of mountains, dark at the ridge and lost in the mist below it."""
    columns = sheet.x.shape[1]
    top = base * sheet.bottom + 0.6 * ridge(columns, peak, 0.52, sheet.random)
    depth = sheet.y - top
    wash = np.exp(-np.clip(depth, 0, None) / (5.5 + 1.5 * sheet.blotches)) * (depth > 0)
    # Folds of the rock run down from the ridge.
    folds = smooth_noise(sheet.x.shape, (2.2 * sheet.unit, 0.45 * sheet.unit), sheet.random)
    rock = np.clip(folds - 0.7, 0, 1) * np.exp(-np.clip(depth, 0, None) / 7) * (depth > 0.3)
    contour = np.exp(-(((depth - 0.25) / (0.30 + 0.14 * sheet.blotches)) ** 2)) * (sheet.fibres > -1.2)
    mist = 1 - 0.8 * np.clip(depth / 16, 0, 1)
    layer = ink * (0.55 * wash + 0.55 * rock + 0.75 * contour)
    hidden = np.clip(depth / 2, 0, 1)
    sheet.density = np.where(depth > 0, sheet.density * (1 - hidden * mist), sheet.density)
    sheet.density = np.maximum(sheet.density, layer)


def _boat(sheet: _Sheet) -> None:
    x, y = 0.60 * sheet.right, 0.80 * sheet.bottom
    span = np.linspace(-1, 1, 24)
    hull = np.stack([x + 7 * span, y + 1.2 - 1.6 * span**2], 1)
    sheet.stroke(hull, 0.75 - 0.45 * np.abs(span), 0.95)
    roof = np.stack([x + 1 + 2.6 * span, y - 1.4 + 1.1 * span**2], 1)
    sheet.stroke(roof, 0.6 - 0.3 * np.abs(span), 0.8, 0.5)
    sheet.stroke(
        np.stack([np.full(12, x - 4.0), np.linspace(y - 2.6, y + 0.4, 12)], 1), np.linspace(0.55, 0.4, 12), 0.95
    )
    sheet.stroke(
        np.stack([np.linspace(x - 7.5, x - 1.5, 20), np.linspace(y - 5, y + 4, 20)], 1), np.full(20, 0.13), 0.8
    )
    for row in range(5):
        at = y + 3.2 + 1.7 * row
        width = sheet.random.uniform(4, 10)
        middle = x + sheet.random.normal(0, 7)
        line = np.stack([middle + width * span, at + 0.25 * np.sin(4 * span)], 1)
        sheet.stroke(line, 0.22 * (1.1 - np.abs(span)), 0.30, 0.5)


def _bamboo(sheet: _Sheet, share: float, tilt: float, ink: float) -> None:
    """Lay a stalk, segment by segment from the ground, and leaves at its joints."""
    random = sheet.random
    x, y = share * sheet.right, sheet.bottom + 2
    while y > -4:
        length = random.uniform(10, 15)
        end_x, end_y = x + tilt * length * 4, y - length
        steps = np.linspace(0, 1, 40)
        points = np.stack([x + (end_x - x) * steps, y - 0.5 + (end_y - y + 1.0) * steps], 1)
        widths = 1.25 * (1 + 0.25 * np.abs(2 * steps - 1) ** 6)
        sheet.stroke(points, widths, ink * random.uniform(0.5, 0.75), 0.55)
        joint = np.stack([end_x + np.linspace(-1.6, 1.6, 9), end_y + 0.35 * np.linspace(-1, 1, 9) ** 2], 1)
        sheet.stroke(joint, np.full(9, 0.28), ink)
        for _ in range(random.integers(1, 4)):
            _leaves(sheet, end_x, end_y, ink)
        x, y = end_x, end_y


def _leaves(sheet: _Sheet, x: float, y: float, ink: float) -> None:
    random = sheet.random
    side = random.choice([-1, 1])
    twig = np.stack(
        [x + side * np.linspace(0, random.uniform(4, 9), 14), y - np.linspace(0, random.uniform(1, 4), 14)], 1
    )
    sheet.stroke(twig, np.full(14, 0.16), ink)
    for _ in range(random.integers(3, 6)):
        root = twig[random.integers(5, 14)]
        angle = np.pi / 2 - side * random.uniform(-0.2, 1.25)
        length, steps = random.uniform(5, 9), np.linspace(0, 1, 26)
        bend = 0.5 * side * steps**2
        leaf = root + length * np.stack([steps * np.cos(angle) + bend, steps * np.sin(angle)], 1)
        sheet.stroke(leaf, 0.95 * np.sin(np.pi * steps**0.75) ** 1.3 + 0.04, ink * random.uniform(0.55, 1.05), 0.1)


def _seal(sheet: _Sheet) -> NDArray[np.bool_]:
    """Return where the seal is printed."""
    x, y = sheet.x - 0.80 * sheet.right, sheet.y - 0.10 * sheet.bottom
    square = (np.abs(x) < 2.6) & (np.abs(y) < 2.6) & (sheet.fibres > -1.6)
    frame = (np.abs(x) > 2.15) | (np.abs(y) > 2.15)
    signs = (np.abs(x) < 0.25) | (np.abs(np.abs(y) - 1.1) < 0.25) | (np.abs(np.hypot(x - 1.1, y) - 0.7) < 0.22)
    printed: NDArray[np.bool_] = square & (frame | ~signs)
    return printed
