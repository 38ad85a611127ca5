"""Paper cut-outs in flat colours: leaves and waves on coloured panels."""

import numpy as np
from PIL import Image, ImageDraw

_OVERSAMPLING = 3
_PANELS = ("#f3e9d2", "#1f4e9c", "#f2b134", "#e4572e", "#17806d", "#f7c6c7", "#0c2340", "#9cc5a1")
_SHAPES = ("#e4572e", "#fdf6e3", "#0c2340", "#17806d", "#f2b134", "#1f4e9c", "#d81e5b", "#111111")


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Cut and glue paper. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    picture = Image.new("RGB", size, _PANELS[0])
    draw = ImageDraw.Draw(picture)
    columns, rows = 4, 3
    xs = np.cumsum(np.concatenate([[0], random.dirichlet(np.full(columns, 14.0))])) * size[0]
    ys = np.cumsum(np.concatenate([[0], random.dirichlet(np.full(rows, 14.0))])) * size[1]
    before = -1
    for row in range(rows):
        for column in range(columns):
            # Neighbours differ, and a figure differs from its panel.
            panel = (3 * row + column * 5 + int(random.integers(0, 2))) % len(_PANELS)
            panel = panel if panel != before else (panel + 1) % len(_PANELS)
            before = panel
            left, top, right, bottom = xs[column], ys[row], xs[column + 1], ys[row + 1]
            draw.rectangle((left, top, right, bottom), fill=_PANELS[panel])
            colours = [colour for colour in _SHAPES if colour != _PANELS[panel]]
            middle = np.array([(left + right) / 2, (top + bottom) / 2])
            reach = 0.44 * min(right - left, bottom - top)
            _figure(draw, middle, reach, colours, random)
    _figure(draw, np.array([0.52 * size[0], 0.50 * size[1]]), 0.30 * size[1], ["#d81e5b", "#fdf6e3"], random, kind=0)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _figure(
    draw: ImageDraw.ImageDraw,
    middle: np.ndarray,
    reach: float,
    colours: list[str],
    random: np.random.Generator,
    *,
    kind: int | None = None,
) -> None:
    kind = int(random.integers(0, 4)) if kind is None else kind
    first, second = (colours[int(index)] for index in random.choice(len(colours), 2, replace=False))
    if kind == 0:
        _leaf(draw, middle, reach, first, random)
    elif kind == 1:
        angle = np.linspace(0, 2 * np.pi, 240)
        lobes = int(random.integers(5, 9))
        radius = reach * (0.72 + 0.24 * np.cos(lobes * angle) + 0.05 * np.sin(2 * angle))
        _cut(draw, middle, radius, angle, first)
        _cut(draw, middle, 0.42 * reach * (1 + 0.08 * np.cos(3 * angle)), angle, second)
    elif kind == 2:
        for row in range(4):
            x = np.linspace(-1.05, 1.05, 80)
            offset = (row - 1.5) * 0.48
            top = offset + 0.13 * np.sin(6 * x + row) - 0.11
            points = np.concatenate([np.stack([x, top], 1), np.stack([x, top + 0.24], 1)[::-1]])
            _polygon(draw, middle + reach * points, first if row % 2 else second)
    else:
        turn = random.uniform(0, np.pi)
        for side in (-1, 1):
            _leaf(
                draw, middle + side * 0.42 * reach * np.array([np.cos(turn), np.sin(turn)]), 0.62 * reach, first, random
            )
        angle = np.linspace(0, 2 * np.pi, 90)
        _cut(draw, middle, np.full(90, 0.20 * reach), angle, second)


def _leaf(
    draw: ImageDraw.ImageDraw, middle: np.ndarray, reach: float, colour: str, random: np.random.Generator
) -> None:
    """Cut a leaf of seaweed: fingers on both sides of a bent rib."""
    turn, bend = random.uniform(0, 2 * np.pi), random.uniform(-0.5, 0.5)
    fingers, steps = int(random.integers(4, 7)), np.linspace(0, 1, 260)
    finger = np.abs(np.sin(np.pi * fingers * steps)) ** 0.5
    envelope = np.sin(np.pi * np.clip(0.06 + 0.94 * steps, 0, 1)) ** 0.6
    sides = []
    for side in (-1, 1):
        aside = side * (0.13 + 0.5 * finger * envelope) * envelope
        along = 2 * steps - 1 + 0.8 * np.abs(aside) - 0.25
        sides.append(np.stack([along, aside + bend * along**2], 1))
    points = np.concatenate([sides[0], sides[1][::-1]])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    _polygon(draw, middle + reach * points @ rotation, colour)


def _cut(draw: ImageDraw.ImageDraw, middle: np.ndarray, radius: np.ndarray, angle: np.ndarray, colour: str) -> None:
    _polygon(draw, middle + np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), colour)


def _polygon(draw: ImageDraw.ImageDraw, points: np.ndarray, colour: str) -> None:
    draw.polygon([tuple(point) for point in points], fill=colour)
