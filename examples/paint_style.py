"""Paints a style picture: a night sky of swirling brush strokes above fields of wheat.

The program works like a painter. A composition decides the colour and the direction of the brush at each point. Layers
of strokes follow, from a broad brush to a fine one. At last, light falls on the relief of the paint. Nothing is copied
from an existing painting. Another seed gives another night.

    python examples/paint_style.py OUT.png --size 768x576 --seed 7
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

DEFAULT_SIZE = (768, 576)
DEFAULT_SEED = 7

# Pigments from dark to light; a tone between 0 and 1 picks from them.
SKY = ("#0a1233", "#13286b", "#1b4a9c", "#2478b0", "#4aa5ac", "#a9cfae", "#f0dc8c", "#f9c53f", "#fff3c4")
LAND = ("#0c1838", "#14405e", "#24726e", "#7d8a3c", "#c27a1c", "#e3a52c", "#f6cf5e", "#fff0b8")


@dataclass(frozen=True)
class Brush:
    """One layer of strokes. Lengths are fractions of the scale of the picture, which is the root of its area."""

    width: float
    length: float
    coverage: float  # How many times over the strokes would cover the picture.
    tone_jitter: float
    turn_jitter: float


BRUSHES = (
    Brush(width=0.034, length=0.120, coverage=4.0, tone_jitter=0.05, turn_jitter=0.10),
    Brush(width=0.020, length=0.090, coverage=1.2, tone_jitter=0.08, turn_jitter=0.12),
    Brush(width=0.012, length=0.055, coverage=0.6, tone_jitter=0.11, turn_jitter=0.15),
    Brush(width=0.007, length=0.035, coverage=0.15, tone_jitter=0.15, turn_jitter=0.18),
)

# Strokes are drawn this many times larger and scaled down, which smooths their edges.
OVERSAMPLING = 2
# Points on each half of a stroke.
STEPS = 6


@dataclass(frozen=True)
class Scene:
    """The direction of the brush and the tone at every point, and whether it is land."""

    angle: np.ndarray
    tone: np.ndarray
    land: np.ndarray


def paint(width: int = DEFAULT_SIZE[0], height: int = DEFAULT_SIZE[1], seed: int = DEFAULT_SEED) -> Image.Image:
    """Paint a picture. The same size and seed give the same picture."""
    rng = np.random.default_rng(seed)
    scene = compose(width, height, rng)
    # The alpha channel carries the height of the paint, so that one drawing call lays down both.
    canvas = underpaint(scene).resize((width * OVERSAMPLING, height * OVERSAMPLING))
    for brush in BRUSHES:
        lay_strokes(canvas, scene, brush, rng)
    return light(canvas).resize((width, height), Image.Resampling.LANCZOS)


def compose(width: int, height: int, rng: np.random.Generator) -> Scene:
    """Compose the sky and the hills in front of it."""
    scale = np.sqrt(width * height)
    y, x = np.mgrid[0:height, 0:width] / scale
    stream, tone = compose_sky(x, y, rng)
    land = np.zeros(tone.shape, bool)
    bottom = height / scale
    for top, darkest, contrast in ((0.70, 0.05, 0.18), (0.77, 0.08, 0.30), (0.86, 0.16, 0.36)):
        phase = rng.uniform(0, 2 * np.pi, 3)
        ridge = bottom * top + 0.035 * np.sin(x * 3.5 + phase[0]) + 0.015 * np.sin(x * 9 + phase[1])
        hill = y > ridge
        depth = y - ridge
        furrows = depth + 0.05 * np.sin(x * 6 + depth * 9 + phase[2]) + 0.012 * np.sin(x * 19 + phase[0])
        hill_tone = darkest + contrast * (1 + np.sin(furrows * 80))
        stream, tone, land = np.where(hill, furrows, stream), np.where(hill, hill_tone, tone), land | hill
    dy, dx = np.gradient(stream)
    return Scene(np.arctan2(-dx, dy), tone, land)


def compose_sky(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the stream function and the tone of a sky of wind, vortices, a moon and stars.

    The brush follows the contour lines of the stream function, and so do the bands of tone.
    """
    phase = rng.uniform(0, 2 * np.pi, 3)
    stream = y + 0.04 * np.sin(x * 4 + phase[0]) + 0.02 * np.sin(x * 7 - y * 5 + phase[1])
    glow = 0.06 * np.sin(x * 5 + phase[2]) + 0.10 * (y - y.max() / 2)

    vortices, moon, stars = [0.20, 0.14], [0.085], rng.uniform(0.026, 0.046, 11).tolist()
    discs = scatter(rng, x.max(), y.max() * 0.62, vortices + moon + stars)
    for index, (cx, cy, radius) in enumerate(discs):
        distance = np.hypot(x - cx, y - cy) / radius
        if index < len(vortices):
            stream += rng.choice([-1, 1]) * 2.4 * radius * np.exp(-(distance**2))
            glow += 0.14 * np.exp(-(distance**2))
        else:
            # Close to a star its rings replace the wind, which is mostly the term y.
            ring = np.exp(-((distance / 1.9) ** 4))
            stream += ring * (radius * (1.5 * distance - 3) - 0.8 * (y - cy))
            glow += 0.80 * np.exp(-((distance / 0.9) ** 2)) + 0.25 * np.exp(-((distance - 1.8) ** 2) * 5)
    bands = np.sin(stream * 42 + 1.5 * np.sin(x * 3 + y * 5))
    return stream, 0.24 + 0.17 * bands + glow


def scatter(
    rng: np.random.Generator, right: float, bottom: float, radii: list[float]
) -> list[tuple[float, float, float]]:
    """Return discs (x, y, radius) of the given radii, well apart from each other."""
    discs: list[tuple[float, float, float]] = []
    for radius in radii:
        spots = rng.uniform((0.04, 0.06), (right - 0.04, bottom), (60, 2))
        gaps = [min((np.hypot(x - u, y - v) - r for u, v, r in discs), default=0) for x, y in spots]
        discs.append((*spots[int(np.argmax(gaps))], radius))
    return discs


def underpaint(scene: Scene) -> Image.Image:
    """Fill the canvas with thin paint, so that no bare canvas shows between the strokes."""
    colours = np.where(scene.land[..., None], mix(LAND, scene.tone), mix(SKY, scene.tone))
    return Image.fromarray(np.dstack([colours, np.full(scene.tone.shape, 60)]).astype(np.uint8), "RGBA")


def lay_strokes(canvas: Image.Image, scene: Scene, brush: Brush, rng: np.random.Generator) -> None:
    """Cover the canvas with strokes of one brush."""
    height, width = scene.tone.shape
    scale = np.sqrt(width * height)
    count = int(brush.coverage / (brush.width * brush.length))
    middles = spread_evenly(count, rng) * (width, height)
    lengths = scale * brush.length * rng.uniform(0.5, 1.4, count)
    widths = scale * brush.width * rng.uniform(0.6, 1.3, count)
    paths = follow(scene.angle, middles, lengths, rng.normal(0, brush.turn_jitter, count))

    column, row = cells(middles, scene.tone.shape)
    tones = scene.tone[row, column] + rng.normal(0, brush.tone_jitter, count)
    # A brush is loaded unevenly: its two edges carry different tones.
    edges = tones[:, None] + rng.normal(0, brush.tone_jitter, (count, 2))
    is_land = scene.land[row, column]
    draw = ImageDraw.Draw(canvas)
    for path, stroke_width, edge, on_land in zip(paths, widths, edges, is_land, strict=True):
        draw_stroke(
            draw, path * OVERSAMPLING, stroke_width * OVERSAMPLING, edge, pigments=LAND if on_land else SKY, rng=rng
        )


def spread_evenly(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return points of the unit square that leave no gaps and form no visible grid."""
    # The R2 sequence: steps by powers of the inverse of the plastic number, the golden ratio of the plane.
    steps = 1.32471795724474602596 ** -np.array([1.0, 2.0])
    return (rng.uniform(size=2) + np.arange(count)[:, None] * steps) % 1


def follow(angle: np.ndarray, middles: np.ndarray, lengths: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Follow the flow both ways from the middle of all strokes at once. Return their points, (strokes, points, 2)."""
    halves = []
    for sign in (-1, 1):
        points = [middles]
        for _ in range(STEPS):
            column, row = cells(points[-1], angle.shape)
            heading = angle[row, column] + turns
            step = np.stack([np.cos(heading), np.sin(heading)], 1) * (sign * lengths / STEPS / 2)[:, None]
            points.append(points[-1] + step)
        halves.append(points)
    backward, forward = halves
    return np.stack(backward[:0:-1] + forward, 1)


def cells(points: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the column and row of the pixel nearest to each point."""
    column = np.clip(points[:, 0], 0, shape[1] - 1).astype(int)
    row = np.clip(points[:, 1], 0, shape[0] - 1).astype(int)
    return column, row


def draw_stroke(
    draw: ImageDraw.ImageDraw,
    path: np.ndarray,
    width: float,
    edge_tones: np.ndarray,
    *,
    pigments: tuple[str, ...],
    rng: np.random.Generator,
) -> None:
    """Draw one stroke bristle by bristle."""
    bristles = max(3, round(width / 2.6))
    across = np.linspace(-0.5, 0.5, bristles)
    tangent = np.gradient(path, axis=0)
    normal = tangent[:, ::-1] * (-1, 1) / (np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9)
    # The tip of the brush narrows at both ends.
    spread = width * (0.55 + 0.45 * np.sin(np.linspace(0, np.pi, len(path)))[:, None]) * normal
    tones = edge_tones[0] + (across + 0.5) * (edge_tones[1] - edge_tones[0]) + rng.normal(0, 0.025, bristles)
    colours = np.clip(mix(pigments, tones) + rng.normal(0, 9, 3), 0, 255).astype(int).tolist()
    # The brush pushes paint to its edges, where it stands in ridges.
    reliefs = 90 + 90 * np.abs(across * 2) ** 3 + rng.uniform(-45, 45, bristles)
    firsts = rng.integers(0, 3, bristles)
    lasts = len(path) - rng.integers(0, 4, bristles)
    for offset, colour, relief, first, last in zip(across, colours, reliefs, firsts, lasts, strict=True):
        line = (path + offset * spread)[first:last]
        draw.line(line.ravel().tolist(), fill=(*colour, int(relief)), width=max(2, round(width / bristles * 1.5)))


def mix(pigments: tuple[str, ...], tones: np.ndarray) -> np.ndarray:
    """Mix neighbouring pigments into colours of the given tones."""
    table = np.array([tuple(bytes.fromhex(pigment[1:])) for pigment in pigments])
    position = np.clip(tones, 0, 1) * (len(table) - 1)
    channels = [np.interp(position, range(len(table)), channel) for channel in table.T]
    return np.stack(channels, -1).astype(int)


def light(canvas: Image.Image) -> Image.Image:
    """Light the relief of the paint from the upper left."""
    relief = canvas.getchannel("A").filter(ImageFilter.GaussianBlur(1.2))
    dy, dx = np.gradient(np.asarray(relief, float))
    shade = np.clip((dx + dy) * 0.016, -0.4, 0.4)[..., None]
    colour = np.asarray(canvas.convert("RGB"), float)
    lit = colour * (1 + shade) + 60 * np.clip(shade, 0, None)
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT."""
    width, height = map(int, text.lower().split("x"))
    if min(width, height) < 16:
        raise argparse.ArgumentTypeError("a picture has at least 16x16 pixels")
    return width, height


def main() -> None:
    """Paint a picture into a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--size", type=size, default=DEFAULT_SIZE, metavar="WIDTHxHEIGHT")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    args = parser.parse_args()
    width, height = args.size
    paint(width, height, args.seed).save(args.out)


if __name__ == "__main__":
    main()
