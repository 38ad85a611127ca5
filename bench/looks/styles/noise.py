"""Smooth noise and smooth shapes that the painters share."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]


def smooth_noise(shape: tuple[int, int], sigma: float | tuple[float, float], random: np.random.Generator) -> Array:
    """Return noise (H, W) of mean 0 and deviation 1, smoothed by a Gaussian of `sigma` pixels (rows, columns)."""
    values = ndimage.gaussian_filter(random.normal(size=shape), sigma, mode="wrap")
    normalised: Array = (values - values.mean()) / values.std()
    return normalised


def ridge(width: int, height: float, roughness: float, random: np.random.Generator) -> Array:
    """Return the outline (W,) of a range of hills: a sum of waves, each with half the length of the one before.

    Args:
        width: number of columns.
        height: the highest amplitude in pixels.
        roughness: the amplitude of a wave over that of the one before; 0.5 makes a mountain, less makes a hill.
        random: the source of the phases.
    """
    x = np.arange(width) / width
    waves = [
        roughness**octave * np.sin(2 * np.pi * (2**octave * random.uniform(0.7, 1.3) * x + random.uniform()))
        for octave in range(8)
    ]
    total: Array = np.sum(waves, 0)
    return total * height


def rgb(colour: str) -> Array:
    """Return a colour such as "#a1b2c3" as three numbers in [0, 1]."""
    return np.array(tuple(bytes.fromhex(colour[1:]))) / 255
