"""A pointillist painting: trees and sails at a river in the evening, in dots of unmixed colours."""

import numpy as np
from paint_style import spread_evenly
from PIL import Image, ImageDraw

from bench.looks.styles.noise import Array, rgb, ridge, smooth_noise

_OVERSAMPLING = 2
_PIGMENTS = tuple(
    map(
        rgb,
        [
            "#f7e9a0",
            "#f6c445",
            "#ee8c2f",
            "#d9472b",
            "#b32d5e",
            "#7a3f98",
            "#3f4fa8",
            "#2f86c6",
            "#6fc3d8",
            "#1f8a70",
            "#5fae4a",
            "#b9cf57",
            "#fbf4e4",
            "#16264f",
            "#0f4a3c",
            "#f2a7a0",
        ],
    )
)
_LAYERS = ((0.95, 1.4), (0.62, 2.2))
"""The radius of the dots of each layer, and how many times over they would cover the picture."""


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Set the dots. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    rows, columns = height * _OVERSAMPLING, width * _OVERSAMPLING
    unit = np.sqrt(rows * columns) / 100
    scene = _scene(rows, columns, unit, random)
    ground = Image.fromarray((255 * np.clip(0.75 * scene + 0.22, 0, 1)).astype(np.uint8))
    draw = ImageDraw.Draw(ground)
    pigments = np.stack(_PIGMENTS)
    for radius, coverage in _LAYERS:
        count = int(coverage * 10000 / (np.pi * radius**2))
        middles = spread_evenly(count, random) * (columns, rows) + random.normal(0, 0.35 * radius * unit, (count, 2))
        row = np.clip(middles[:, 1], 0, rows - 1).astype(int)
        column = np.clip(middles[:, 0], 0, columns - 1).astype(int)
        wanted = scene[row, column]
        # Each dot is the pigment that is nearest to the colour with a random error: together they mix in the eye.
        tried = wanted + random.normal(0, 0.17, wanted.shape)
        chosen = pigments[np.argmin(((tried[:, None] - pigments) ** 2).sum(-1), 1)]
        colours = (255 * np.clip(0.82 * chosen + 0.18 * wanted, 0, 1)).astype(int)
        radii = radius * unit * random.uniform(0.75, 1.1, count)
        for (x, y), size, colour in zip(middles, radii, colours.tolist(), strict=True):
            draw.ellipse((x - size, y - size * 0.9, x + size, y + size * 0.9), fill=tuple(colour))
    return ground.resize((width, height), Image.Resampling.LANCZOS)


def _scene(rows: int, columns: int, unit: float, random: np.random.Generator) -> Array:
    """Return the colours (H, W, 3) of the motif."""
    y, x = np.mgrid[0:rows, 0:columns] / unit
    right, bottom = columns / unit, rows / unit
    horizon = 0.48 * bottom
    sun_x, sun_y = 0.30 * right, 0.30 * bottom
    glow = np.exp(-np.hypot(x - sun_x, 1.3 * (y - sun_y)) / 26)[..., None]
    height = np.clip(y / horizon, 0, 1)[..., None]
    sky = rgb("#5aa0d0") * (1 - height) + rgb("#f3d9a0") * height
    sky = sky * (1 - glow) + rgb("#fbe08a") * glow
    sky = np.where((np.hypot(x - sun_x, y - sun_y) < 4.2)[..., None], rgb("#fff3b8"), sky)
    shore = horizon - 3 + 0.35 * ridge(columns, 4.0, 0.4, random)
    far = (y > shore - 4)[..., None]
    scene = np.where(far, rgb("#7d78b8") * 0.75 + 0.25 * sky, sky)
    depth = np.clip((y - horizon) / (bottom - horizon), 0, 1)[..., None]
    water = rgb("#f0c890") * (1 - depth) + rgb("#2f6fb2") * depth
    ripple = np.sin(y * (2.6 - 1.4 * depth[..., 0]) + 1.5 * np.sin(x / 5)) > 0.35
    path = np.exp(-(((x - sun_x) / (2.5 + 0.20 * (y - horizon))) ** 2))
    water = water * (1 - 0.75 * path[..., None]) + rgb("#fdeaa0") * 0.75 * path[..., None]
    water = np.where(ripple[..., None], 0.82 * water + 0.18 * rgb("#3c4fa0"), water)
    scene = np.where((y > horizon)[..., None], water, scene)
    for share, size in ((0.47, 9.0), (0.60, 6.0), (0.55, 4.0)):
        at = share * right
        up = horizon + 2 - y
        sail = (up > 0.8) & (up < size) & (x > at) & (x < at + 0.55 * (size - up))
        scene = np.where(sail[..., None], rgb("#fbf4e4"), scene)
        mirrored = (-up > 0.6) & (-up < 0.8 * size) & (x > at) & (x < at + 0.5 * (size + up))
        scene = np.where(mirrored[..., None], 0.5 * scene + 0.5 * rgb("#fbf4e4"), scene)
        hull = (np.abs(up - 0.2) < 0.7) & (np.abs(x - at - 0.2 * size) < 0.42 * size)
        scene = np.where(hull[..., None], rgb("#7a2a3c"), scene)
    leaves = smooth_noise((rows, columns), 2.2 * unit, random)
    bank = bottom - 9 - 10 * np.clip((x / right - 0.55) / 0.45, 0, 1) + 1.5 * np.sin(x / 6)
    light = np.clip(0.5 + 0.35 * leaves, 0, 1)[..., None]
    grass = rgb("#2d6b3a") * (1 - light) + rgb("#c4c653") * light
    scene = np.where((y > bank)[..., None], grass, scene)
    for share, top, spread in ((0.88, 0.30, 16.0), (0.74, 0.42, 9.0), (0.03, 0.36, 11.0)):
        trunk_x = share * right
        trunk = (np.abs(x - trunk_x - 0.8 * np.sin(y / 8)) < 0.09 * spread) & (y > top * bottom) & (y < bank + 6)
        scene = np.where(trunk[..., None], rgb("#4a2a4a"), scene)
        crown = np.hypot((x - trunk_x) / spread, (y - top * bottom) / (0.85 * spread)) + 0.13 * leaves < 1
        lit = np.clip(0.55 - (x - trunk_x) / spread * 0.5 + 0.3 * leaves, 0, 1)[..., None]
        scene = np.where(crown[..., None], rgb("#174a4a") * (1 - lit) + rgb("#b5c94a") * lit, scene)
    return np.asarray(scene, np.float64)
