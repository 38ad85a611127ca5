"""A mosaic: fish in a round basin, laid from tesserae that follow the outlines of the figures."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.measure import find_contours

from bench.looks.styles.noise import Array, rgb, smooth_noise

_GROUT = rgb("#3a332c")
_OVERSAMPLING = 2
_TESSERA = 1.75
"""The edge of a tessera in hundredths of the scale of the picture, which is the root of its area."""


@dataclass(frozen=True)
class _Figure:
    """A region of one material."""

    region: NDArray[np.bool_]
    colours: tuple[str, ...]
    """The colours of its rows, from the outline inwards, in turns."""
    jitter: float = 0.05
    size: float = 1.0


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Lay a mosaic. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    rows, columns = height * _OVERSAMPLING, width * _OVERSAMPLING
    unit = np.sqrt(rows * columns) / 100
    y, x = np.mgrid[0:rows, 0:columns] / unit
    picture = Image.fromarray(np.broadcast_to(255 * _GROUT, (rows, columns, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    taken = np.zeros((rows, columns), bool)
    for figure in _figures(x, y, columns / unit, rows / unit):
        _lay(draw, taken, figure, unit, random)
    values = np.asarray(picture, float) / 255
    # Stones are not flat, and glass shimmers.
    values *= 1 + 0.05 * smooth_noise((rows, columns), 0.3 * unit, random)[..., None]
    picture = Image.fromarray((255 * np.clip(values, 0, 1)).round().astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _figures(x: Array, y: Array, right: float, bottom: float) -> list[_Figure]:
    middle_x, middle_y = right / 2, bottom / 2
    radius = np.hypot(x - middle_x, (y - middle_y) * right / bottom * 0.92)
    basin = radius < 0.47 * right
    figures, used = [], np.zeros(x.shape, bool)

    def add(region: NDArray[np.bool_], *colours: str, jitter: float = 0.05, size: float = 1.0) -> None:
        nonlocal used
        figures.append(_Figure(region & ~used, colours, jitter, size))
        used = used | region

    for at_x, at_y, length, turn, body, fins in (
        (0.37, 0.36, 0.36, 0.25, ("#7c1f18", "#c8452a", "#e8833a", "#f2c14e", "#f6e2a0"), "#a8321f"),
        (0.64, 0.60, 0.40, 3.45, ("#123a4f", "#1f6f78", "#4fa58c", "#c9d58b", "#f4ecc2"), "#d9a441"),
        (0.30, 0.73, 0.22, -0.35, ("#5c2a4a", "#96466b", "#d47f8e", "#f3c6b4"), "#7a3158"),
    ):
        turned_x = np.cos(turn) * (x - at_x * right) + np.sin(turn) * (y - at_y * bottom)
        turned_y = -np.sin(turn) * (x - at_x * right) + np.cos(turn) * (y - at_y * bottom)
        along = turned_x / (length * right / 2)
        thickness = length * right * 0.19 * np.sqrt(np.clip(1 - along**2, 0, 1)) * (1 - 0.28 * along)
        eye = np.hypot(along + 0.66, turned_y / (length * right * 0.5) + 0.06)
        add(eye < 0.085, "#15120f", jitter=0.02, size=0.6)
        add(eye < 0.2, "#f8f1dc", jitter=0.03, size=0.6)
        gill = np.abs(along + 0.34 + 0.5 * (turned_y / (length * right * 0.3)) ** 2) < 0.035
        add(gill & (np.abs(turned_y) < 0.8 * thickness), body[0], size=0.75)
        add((np.abs(along) < 1) & (np.abs(turned_y) < thickness), *body, size=0.85)
        tail = (along > 0.86) & (along < 1.42) & (np.abs(turned_y) < length * right * 0.36 * (along - 0.82))
        dorsal = (np.abs(along + 0.02) < 0.42) & (turned_y > -thickness - length * right * 0.085) & (turned_y < 0)
        add(tail | dorsal, fins, body[1], fins, body[1], size=0.85)
    for share, sway in ((0.14, 0.5), (0.52, 2.0), (0.86, 3.4)):
        stem = share * right + 2.2 * np.sin(y / 7 + sway)
        leaf = np.abs(x - stem) < 0.7 + 1.9 * np.abs(np.sin(y / 3.1 + sway))
        add(basin & leaf & (y > 0.50 * bottom + 9 * np.sin(sway)), "#2f4a1f", "#6d8b34", "#b4bd5a", size=0.8)
    for at_x, at_y, size in ((0.57, 0.20, 2.4), (0.62, 0.30, 1.6), (0.58, 0.36, 1.1), (0.17, 0.46, 1.8)):
        add(np.hypot(x - at_x * right, y - at_y * bottom) < size, "#e9f3ee", "#9fd0d8", size=0.65)
    add(basin, "#0f2f57", "#1d5c8f", "#2f7fb0", "#1d5c8f", "#3d93bd", "#2468a0", jitter=0.09)
    add(radius < 0.50 * right, "#f0e3c0", jitter=0.04)
    add(radius < 0.53 * right, "#8c2f22", jitter=0.05)
    add(radius < 0.56 * right, "#e1b04a", jitter=0.06)
    add(np.ones(x.shape, bool), "#e8dcbf", "#dccba6", "#e8dcbf", "#c9b48a", jitter=0.05, size=1.1)
    return figures


def _lay(
    draw: ImageDraw.ImageDraw, taken: NDArray[np.bool_], figure: _Figure, unit: float, random: np.random.Generator
) -> None:
    """Lay the tesserae of a figure in rows along its outline, from the outline inwards."""
    if not figure.region.any():
        return
    edge = _TESSERA * figure.size * unit
    # The picture's own border is no outline.
    padded = np.pad(figure.region, 1, mode="edge")
    depth = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    smooth = ndimage.gaussian_filter(depth, 0.2 * edge)
    for row in range(int(depth.max() / edge) + 1):
        colour = rgb(figure.colours[row % len(figure.colours)])
        for contour in find_contours(smooth, (row + 0.5) * edge):
            for polygon in _tesserae(contour, edge, taken, random):
                shade = colour * (1 + random.normal(0, 2 * figure.jitter)) + random.normal(0, figure.jitter, 3)
                fill = (255 * np.clip(shade, 0, 1)).astype(int).tolist()
                draw.polygon([tuple(point) for point in polygon], fill=tuple(fill))


def _tesserae(contour: Array, edge: float, taken: NDArray[np.bool_], random: np.random.Generator) -> Iterator[Array]:
    """Yield the corners (4, 2) of the tesserae along a contour, and mark their places as taken."""
    walked = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(contour, axis=0).T))])
    count = max(1, round(walked[-1] / edge))
    places = (np.arange(count) + 0.5) * walked[-1] / count
    middles, ahead, behind = (
        np.stack([np.interp(places + offset, walked, contour[:, axis]) for axis in (0, 1)], 1)
        for offset in (0, edge / 3, -edge / 3)
    )
    reach = int(0.45 * edge)
    for (row, column), (d_row, d_column) in zip(middles, ahead - behind, strict=True):
        if taken[min(int(row), taken.shape[0] - 1), min(int(column), taken.shape[1] - 1)]:
            continue
        angle = np.arctan2(d_row, d_column) + random.normal(0, 0.07)
        half = 0.44 * edge * random.uniform(0.88, 1.04, 2)
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half * random.uniform(0.88, 1.0, (4, 2))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        taken[max(0, int(row) - reach) : int(row) + reach, max(0, int(column) - reach) : int(column) + reach] = True
        yield corners @ turn + (column, row)
