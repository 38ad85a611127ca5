"""Measures of a result beside its style and its content: pure functions of pictures.

A picture is an array (H, W, 3) of floats, RGB in [0, 1], encoded as in its file (sRGB, not linear light).

Luma and chroma are those of ITU-R BT.709-6, section 3, on encoded values: Y = 0.2126 R + 0.7152 G + 0.0722 B,
Cb = (B - Y) / 1.8556 and Cr = (R - Y) / 1.5748.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from skimage.color import rgb2lab
from skimage.feature import canny
from skimage.metrics import structural_similarity

Array = NDArray[np.float64]

OCTAVES = (4, 8, 16, 32, 64)
"""The longest period of each octave of spatial frequency in pixels, fine to coarse. Octave P holds the frequencies from
1 / P cycles per pixel up to, and without, 2 / P. The finest one also holds the diagonals above 1/2."""
GRID_PERIODS = (2, 4, 8)
"""Periods of grids in pixels: the strides of a network that pools three times."""

_PROJECTIONS = 64
"""Directions on which the sliced Wasserstein distance projects colours."""
_QUANTILES = 512
"""Quantiles of a projection that are compared."""
_NEIGHBOURHOOD = 1 / 32
"""Frequencies that far from a grid's are its neighbours, in cycles per pixel."""
_MAIN_LOBE = 2
"""Half of the width of the main lobe of the Hann window, in bins of the spectrum."""
_EDGE_SIGMA = 1 / 128
"""The standard deviation of the Gaussian that edges are found with, as a share of the longest edge: 2 px of 256."""
_ORIENTATIONS = 8
"""Classes of the orientation of an edge."""
_FLAT_SHARE = 0.2
"""The share of the content's pixels that count as flat."""


@dataclass(frozen=True)
class Contrast:
    """The RMS contrast of a picture in one octave of spatial frequency, on the scale of pixels in [0, 1]."""

    luma: float
    """The root mean square of the luma in this octave."""
    chroma: float
    """The root of the mean of Cb^2 + Cr^2 in this octave."""


@dataclass(frozen=True)
class Noise:
    """The standard deviation of the noise of a picture, on the scale of pixels in [0, 1]."""

    luma: float
    chroma: float


@dataclass(frozen=True, kw_only=True)
class Measures:
    """All measures of one result."""

    contrast: Mapping[int, Contrast]
    """The contrast of the result in each octave (see `OCTAVES`)."""
    style_contrast: Mapping[int, Contrast]
    """The contrast of the style picture in each octave, at the size at which the engine sees it."""
    grid: Mapping[int, float]
    """The height of the spectrum's peak at each period of `GRID_PERIODS`, see `grid_peaks`."""
    palette: float
    """The distance of the colours to those of the style, see `palette_distance`."""
    edges_kept: float
    """The share of the content's edges that the result keeps, see `edges_kept`."""
    noise: Noise
    """The noise of the result where the content is flat, see `noise`."""
    style_noise: Noise
    """The noise of the whole style picture."""

    def luma_ratio(self, octave: int) -> float:
        """Return the contrast of the luma in an octave, relative to that of the style."""
        return self.contrast[octave].luma / max(self.style_contrast[octave].luma, 1e-9)

    def chroma_ratio(self, octave: int) -> float:
        """Return the contrast of the chroma in an octave, relative to that of the style."""
        return self.contrast[octave].chroma / max(self.style_contrast[octave].chroma, 1e-9)


def measure(result: Array, style: Array, content: Array) -> Measures:
    """Measure a result.

    Args:
        result: the stylised picture (H, W, 3).
        style: the style picture (h, w, 3) at the size at which the engine sees it (see `style_size`).
        content: the content picture (H, W, 3), as large as the result.

    Raises:
        ValueError: the content is not as large as the result.
    """
    if content.shape != result.shape:
        raise ValueError(f"the content has the shape {content.shape}; accepted is that of the result, {result.shape}")
    return Measures(
        contrast=octave_contrast(result),
        style_contrast=octave_contrast(style),
        grid=grid_peaks(result),
        palette=palette_distance(result, style),
        edges_kept=edges_kept(result, content),
        noise=noise(result, flat_regions(content)),
        style_noise=noise(style),
    )


def style_size(style: tuple[int, int], content: tuple[int, int], style_scale: float = 1.0) -> tuple[int, int]:
    """Return the width and height at which the engine sees a style: longest edge style_scale times the content's."""
    factor = max(1, round(style_scale * max(content))) / max(style)
    width, height = (max(1, round(edge * factor)) for edge in style)
    return width, height


def octave_contrast(picture: Array) -> dict[int, Contrast]:
    """Return the RMS contrast of luma and of chroma in each octave of spatial frequency.

    The contrast of an octave is sqrt(sum |C(k, l)|^2 / (H W)) over its ring 1/P <= sqrt((k/2H)^2 + (l/2W)^2) < 2/P,
    where C is the orthonormal DCT-II of a channel. By Parseval's theorem, the squares of all octaves and of what is
    coarser add up to the variance. The DCT continues a picture by its mirror image, so that opposite borders that
    differ add no high frequencies, and every pixel counts alike, as no window of an FFT allows.
    """
    planes = luma_chroma(picture)
    power = fft.dctn(planes, axes=(0, 1), norm="ortho") ** 2 / planes[..., 0].size
    rows, columns = (np.arange(edge) / (2 * edge) for edge in planes.shape[:2])
    frequency = np.hypot(rows[:, None], columns)
    contrasts = {}
    for octave in OCTAVES:
        ring = (frequency >= 1 / octave) & ((frequency < 2 / octave) | (octave == OCTAVES[0]))
        luma, blue, red = power[ring].sum(0)
        contrasts[octave] = Contrast(luma=float(np.sqrt(luma)), chroma=float(np.sqrt(blue + red)))
    return contrasts


def grid_peaks(picture: Array) -> dict[int, float]:
    """Return the height of the spectrum's peak at each period of `GRID_PERIODS`, over its neighbours.

    |F|^2 is the power spectrum of a channel under a Hann window. The power of vertical lines of a period p is the mean
    of |F(fy, fx)|^2 over all fy, at the bin next to fx = 1/p that has the most. It is divided by the median of the same
    mean at the neighbours of 1/p: those at most 1/32 cycles per pixel away, without the main lobe of the window. The
    same is done for horizontal lines. The result for a period is the largest quotient of both directions and of luma,
    Cb and Cr. A picture without a grid has about 1. A channel without any contrast counts as 1.
    """
    planes = luma_chroma(picture)
    height, width = planes.shape[:2]
    window = np.outer(np.hanning(height), np.hanning(width))[..., None]
    mean = (planes * window).sum((0, 1)) / window.sum()
    power = np.abs(fft.fft2((planes - mean) * window, axes=(0, 1))) ** 2
    # Smaller than the rounding of 8-bit files adds to each bin, so that a grey picture has no peaks in its chroma.
    power += np.sum(window**2) / 12 / 255**2
    lines = [power.mean(axis)[:, channel] for axis in (0, 1) for channel in range(3)]
    return {period: max(_peak(line, period) for line in lines) for period in GRID_PERIODS}


def _peak(line: Array, period: int) -> float:
    """Return the power at a period over the median of its neighbours; `line` has the power of each bin of an FFT."""
    middle = len(line) / period
    bins = np.arange(len(line) // 2 + 1)
    distance = np.abs(bins - middle)
    neighbours = (distance <= max(_NEIGHBOURHOOD * len(line), _MAIN_LOBE + 4)) & (distance > _MAIN_LOBE)
    return float(line[bins[distance <= 1]].max() / np.median(line[bins[neighbours]]))


def palette_distance(picture: Array, other: Array) -> float:
    """Return the sliced Wasserstein distance of the colours of two pictures in CIE Lab (D65), in units of Delta E.

    Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures": the root of the mean, over directions
    on the sphere, of the squared 2-Wasserstein distance of the colours projected on each. The directions are a
    Fibonacci sphere, so that the same pictures always have the same distance. In one dimension the 2-Wasserstein
    distance is the L2 distance of the quantile functions.
    """
    index = np.arange(_PROJECTIONS) + 0.5
    height, turn = 1 - 2 * index / _PROJECTIONS, np.pi * (1 + np.sqrt(5)) * index
    radius = np.sqrt(1 - height**2)
    directions = np.stack([radius * np.cos(turn), radius * np.sin(turn), height])
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    projected = [rgb2lab(colours).reshape(-1, 3) @ directions for colours in (picture, other)]
    first, second = (np.quantile(values, levels, axis=0) for values in projected)
    return float(np.sqrt(np.mean((first - second) ** 2)))


def edges_kept(result: Array, content: Array) -> float:
    """Return the share of the content's edges that the result keeps, corrected for chance: 1 is all, 0 is by chance.

    Edges are those of Canny 1986 on the luma, with a Gaussian of 1/128 of the longest edge and thresholds at the 80th
    and the 90th percentile of each picture's gradient. A content edge is kept where the result has an edge at most that
    far away whose orientation differs by at most one of eight classes. A picture full of strokes has edges everywhere.
    Therefore the share is corrected as Cohen's kappa is: (kept - expected) / (1 - expected), where `expected` is
    the share that edges of the same orientations at random places would keep.
    """
    sigma = _EDGE_SIGMA * max(content.shape)
    edges, orientation = _edges(content, sigma)
    others, other_orientation = _edges(result, sigma)
    distance = round(sigma)
    rows, columns = np.mgrid[-distance : distance + 1, -distance : distance + 1]
    disc = np.hypot(rows, columns) <= sigma
    kept = expected = 0.0
    for angle in range(_ORIENTATIONS):
        alike = np.isin(other_orientation, [(angle + turn) % _ORIENTATIONS for turn in (-1, 0, 1)])
        near = ndimage.binary_dilation(others & alike, disc)
        mine = edges & (orientation == angle)
        kept += np.count_nonzero(near & mine)
        expected += near.mean() * np.count_nonzero(mine)
    total = np.count_nonzero(edges)
    return (kept - expected) / (total - expected) if total > expected else 1.0


def _edges(picture: Array, sigma: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return where a picture has edges, and the class of the orientation of its gradient at each pixel."""
    luma = luma_chroma(picture)[..., 0]
    edges: NDArray[np.bool_] = canny(
        luma, sigma=sigma, low_threshold=0.8, high_threshold=0.9, use_quantiles=True, mode="nearest"
    )
    dy, dx = (ndimage.gaussian_filter(luma, sigma, order=order) for order in ((1, 0), (0, 1)))
    turn = np.arctan2(dy, dx) / np.pi * _ORIENTATIONS
    return edges, np.round(turn).astype(np.int64) % _ORIENTATIONS


def flat_regions(content: Array) -> NDArray[np.bool_]:
    """Return where a content is flat: the fifth of its pixels (H, W) that have the least contrast around them.

    The contrast is the standard deviation of the luma under a Gaussian of 1/128 of the longest edge.
    """
    luma = luma_chroma(content)[..., 0]
    sigma = _EDGE_SIGMA * max(content.shape)
    mean, square = (ndimage.gaussian_filter(values, sigma) for values in (luma, luma**2))
    deviation = square - mean**2
    flat: NDArray[np.bool_] = deviation <= np.quantile(deviation, _FLAT_SHARE)
    return flat


def noise(picture: Array, region: NDArray[np.bool_] | None = None) -> Noise:
    """Return the standard deviation of the noise in a region (H, W) of a picture, or in all of it.

    Immerkaer 1996, "Fast noise variance estimation": sigma = sqrt(pi / 2) / 6 * mean |M * channel|, where the mask M is
    the difference of two Laplacians, which constant, linear and quadratic parts of a picture do not pass. The noise of
    the chroma is the root of the sum of the squares of Cb and Cr.
    """
    mask = np.outer([1, -2, 1], [1, -2, 1])[..., None]
    response = np.abs(ndimage.convolve(luma_chroma(picture), mask, mode="reflect"))
    chosen = response.reshape(-1, 3) if region is None else response[region]
    luma, blue, red = np.sqrt(np.pi / 2) / 6 * chosen.mean(0)
    return Noise(luma=float(luma), chroma=float(np.hypot(blue, red)))


def similarity(preview: Array, result: Array) -> float:
    """Return the structural similarity (Wang et al. 2004) of two pictures of one size, the mean over R, G and B."""
    return float(structural_similarity(preview, result, channel_axis=2, data_range=1.0))


def luma_chroma(picture: Array) -> Array:
    """Return the planes Y, Cb and Cr of a picture, (H, W, 3)."""
    red, _, blue = np.moveaxis(picture, 2, 0)
    luma = picture @ np.array([0.2126, 0.7152, 0.0722])
    return np.stack([luma, (blue - luma) / 1.8556, (red - luma) / 1.5748], 2)


def contrast_ratios(picture: Array, other: Array) -> dict[int, tuple[float, float]]:
    """Return the contrast of a picture in each octave, luma and chroma, relative to that of another one."""
    mine, theirs = octave_contrast(picture), octave_contrast(other)
    return {
        octave: (
            mine[octave].luma / max(theirs[octave].luma, 1e-9),
            mine[octave].chroma / max(theirs[octave].chroma, 1e-9),
        )
        for octave in OCTAVES
    }


def as_rows(measures: Measures) -> Sequence[tuple[str, str]]:
    """Return all measures as pairs of a name and a text."""
    rows = []
    for octave in OCTAVES:
        mine, theirs = measures.contrast[octave], measures.style_contrast[octave]
        rows.append(
            (
                f"contrast, {octave // 2} to {octave} px",
                f"luma {measures.luma_ratio(octave):.2f} of {theirs.luma:.3f}, "
                f"chroma {measures.chroma_ratio(octave):.2f} of {theirs.chroma:.3f} ({mine.chroma:.3f})",
            )
        )
    peaks = ", ".join(f"{measures.grid[period]:.1f} at {period} px" for period in GRID_PERIODS)
    return [
        *rows,
        ("grid, peak over its neighbours", peaks),
        ("palette, distance to the style", f"{measures.palette:.1f}"),
        ("edges of the content kept", f"{measures.edges_kept:.2f}"),
        (
            "noise where the content is flat",
            f"luma {measures.noise.luma:.4f} (style {measures.style_noise.luma:.4f}), "
            f"chroma {measures.noise.chroma:.4f} (style {measures.style_noise.chroma:.4f})",
        ),
    ]
