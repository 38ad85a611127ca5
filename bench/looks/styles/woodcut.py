"""A woodcut: the sun over mountains and water, cut as lines into two blocks, black and one colour."""

import numpy as np
from PIL import Image
from scipy import ndimage

from bench.looks.styles.noise import Array, rgb, ridge, smooth_noise

_PAPER, _INK, _TONE = rgb("#efe3c6"), rgb("#191614"), rgb("#b5482a")
_OVERSAMPLING = 2


def paint(width: int, height: int, seed: int) -> Image.Image:
    """Print a woodcut. The same size and seed give the same picture."""
    random = np.random.default_rng(seed)
    rows, columns = height * _OVERSAMPLING, width * _OVERSAMPLING
    unit = np.sqrt(rows * columns) / 100
    y, x = np.mgrid[0:rows, 0:columns] / unit
    right, bottom = columns / unit, rows / unit
    # A gouge does not follow a line exactly.
    wobble = 0.25 * smooth_noise((rows, columns), 3 * unit, random) + 0.06 * smooth_noise((rows, columns), unit, random)

    sun_x, sun_y, radius = 0.66 * right, 0.27 * bottom, 0.09 * right
    distance = np.hypot(x - sun_x, y - sun_y)
    angle = np.arctan2(y - sun_y, x - sun_x)
    # Rays widen away from the sun; wind lines cross the upper corners.
    rays = np.cos(44 * angle + wobble)
    ink = rays < -0.55 + 0.020 * (distance - radius)
    ink &= distance > radius + 1.2
    ring = np.abs(distance - radius) < 0.45
    wind = _stripes(y + 2.2 * np.sin(x / 9 + 0.6) + wobble, 2.1) < 0.30 + 0.035 * (0.22 * bottom - y)
    is_wind = y < 0.20 * bottom + 2 * np.sin(x / 9 + 0.6) - 0.16 * np.abs(x - sun_x) * (distance < 3 * radius)
    ink = np.where(is_wind & (distance > 1.7 * radius), wind, ink) | ring
    tone = distance < radius - 0.8

    horizon = 0.62 * bottom
    for base, peak, roughness, slope in ((0.56, 10.0, 0.50, 0.5), (0.63, 7.0, 0.55, -0.7)):
        top = base * bottom + ridge(columns, peak, roughness, random) * 0.55
        mountain = (y > top) & (y < horizon)
        depth = y - top
        # Light comes from the right: slopes that fall to the left lie in the shade.
        steep = ndimage.gaussian_filter1d(np.gradient(top) * unit, 0.8 * unit)
        shade = np.clip(0.5 - 1.1 * steep, 0.06, 0.94) * np.clip(1.15 - depth / 26, 0.25, 1)
        hatch = _stripes(y * 0.75 - slope * x + 1.2 * np.sin(depth / 2.5) + 2 * wobble, 1.7) < shade
        ink = np.where(mountain, hatch, ink)
        ink |= np.abs(depth) < 0.5
        tone = np.where(mountain, False, tone)

    water = y >= horizon
    waves = y + (0.3 + (y - horizon) / 22) * np.sin(x / 2.6 + 2.3 * np.sin(y / 2.2)) + wobble
    glitter = np.exp(-(((x - sun_x) / (3 + 0.42 * (y - horizon))) ** 2))
    ink = np.where(water, _stripes(waves, 1.5 + (y.max() - horizon) / 30) < 0.68 - 0.5 * glitter, ink)
    tone = np.where(water, glitter > 0.42, tone)

    ink |= _pines(x, y, right, bottom, random)
    grain = smooth_noise((rows, columns), (0.1 * unit, 4 * unit), random)
    ink &= grain > -2.1
    # The colour block is set slightly beside the black one, as on a hand press.
    tone = np.roll(tone & (grain > -1.7), (round(0.25 * unit), round(-0.2 * unit)), (0, 1))
    border = (x < 1.5) | (x > right - 1.5) | (y < 1.5) | (y > bottom - 1.5)
    colours = np.where((tone & ~border)[..., None], _TONE, _PAPER)
    colours = np.where((ink & ~border)[..., None], _INK, colours)
    picture = Image.fromarray((255 * colours).round().astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _stripes(field: Array, period: float) -> Array:
    """Return a triangle wave in [0, 1] of a field, so that `_stripes(...) < share` cuts lines of that share."""
    return np.abs(2 * ((field / period) % 1) - 1)


def _pines(x: Array, y: Array, right: float, bottom: float, random: np.random.Generator) -> np.ndarray:
    """Return where pines stand in the foreground: black, with branches cut out of them."""
    trees = np.zeros(x.shape, bool)
    shore = 0.90 * bottom + 2 * np.sin(x / 14) + 1.0 * np.sin(x / 5)
    for share in (0.05, 0.12, 0.19, 0.86, 0.94):
        middle, top = right * share, bottom * random.uniform(0.30, 0.52)
        depth = y - top
        lean = 0.4 * np.sin(depth / 9)
        aside = np.abs(x - middle - lean)
        branch = (depth % 4.2) / 4.2
        reach = 0.5 + (0.13 * depth) * (0.35 + 0.65 * branch)
        tree = (depth > 0) & (aside < reach)
        needles = _stripes(depth - 0.9 * aside, 2.1) > 0.80
        trees |= tree & ~(needles & (aside > 0.5) & (aside < 0.9 * reach))
    ground = y > shore
    trees |= ground & ~((_stripes(y - shore + 0.4 * np.sin(x / 1.7), 2.4) > 0.78) & (y < bottom - 2))
    return trees
