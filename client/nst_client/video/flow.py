"""Optical flow between two frames: where each pixel came from, and where that cannot be known.

A flow is (height, width, 2), the way of each pixel in pixels, x before y. Ruder, Dosovitskiy & Brox, "Artistic style
transfer for videos" (2016), section 4.1; the checks are those of Sundaram, Brox & Keutzer, "Dense point trajectories by
GPU-accelerated large displacement optical flow" (2010).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nst_client.video.pixels import Pixels

Flow = NDArray[np.float32]
"""(height, width, 2)."""


def flow_between(start: Pixels, end: Pixels) -> Flow:
    """Return for each pixel of `start` the way to where the same thing is in `end`, another picture of its size.

    Dense inverse search: Kroeger et al., "Fast optical flow using dense inverse search" (2016).
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # Down to single pixels: a third of the error of the preset, for time that does not count beside a stylisation.
    search.setFinestScale(0)
    grey = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (start, end)]
    # Without a flow to begin with, which the stubs do not know about.
    return np.asarray(search.calc(*grey, None), np.float32)  # type: ignore[call-overload]


def warp(previous: Pixels, backward: Flow, beyond: Pixels | None = None) -> Pixels:
    """Return the previous picture moved to the present one.

    Args:
        previous: the picture before.
        backward: the flow from the present picture to it.
        beyond: what to show where the flow leads out of the picture. Default: the previous picture's border.
    """
    # Cubic: frame after frame, anything softer blurs.
    moved = np.asarray(_sampled(previous, backward, cv2.INTER_CUBIC), np.uint8)
    return moved if beyond is None else np.where(_stays_in_sight(backward)[..., np.newaxis], moved, beyond)


def reliable(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    """Return where a flow can be trusted: what is there was in sight before, and moves as what is around it.

    Args:
        backward: from the present picture to the previous one.
        forward: from the previous picture to the present one.
    """
    return _stays_in_sight(backward) & _is_consistent(backward, forward) & ~_is_boundary(backward)


def _is_consistent(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    """Return where going there and back ends where it began (Ruder et al., equation 5)."""
    way_back = np.asarray(_sampled(forward, backward, cv2.INTER_LINEAR), np.float32)
    gap = _squared(way_back + backward)
    return np.asarray(gap <= 0.01 * (_squared(way_back) + _squared(backward)) + 0.5)


def _is_boundary(flow: Flow) -> NDArray[np.bool_]:
    """Return where things that move differently meet, so that the flow is blurred (Ruder et al., equation 6)."""
    slopes = sum(_squared(np.gradient(flow, axis=axis)) for axis in (0, 1))
    return np.asarray(slopes > 0.01 * _squared(flow) + 0.002)


def _stays_in_sight(flow: Flow) -> NDArray[np.bool_]:
    """Return where the way ends inside the picture."""
    height, width = flow.shape[:2]
    ends = _grid(flow) + flow
    # Half a pixel is within the border pixels.
    return np.asarray(((ends >= -0.5) & (ends <= (width - 0.5, height - 0.5))).all(-1))


def _sampled(values: NDArray[Any], flow: Flow, interpolation: int) -> NDArray[Any]:
    """Return the values at the ends of the ways, of the nearest pixel where these are outside."""
    ends = _grid(flow) + flow
    return np.asarray(cv2.remap(values, ends, None, interpolation, borderMode=cv2.BORDER_REPLICATE))  # type: ignore[call-overload]


def _grid(flow: Flow) -> Flow:
    """Return the place of each pixel."""
    height, width = flow.shape[:2]
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _squared(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the squared length of each vector."""
    return np.asarray(np.square(vectors).sum(axis=-1))
