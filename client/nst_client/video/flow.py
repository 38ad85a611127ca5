"""Optical flow between two frames, and where it is reliable.

A flow is `(height, width, 2) float32`: the displacement of each pixel in pixels, x before y.

Ruder, Dosovitskiy & Brox, "Artistic style transfer for videos" (2016), section 4.1. The checks are those of Sundaram,
Brox & Keutzer, "Dense point trajectories by GPU-accelerated large displacement optical flow" (2010).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from nst_client.video.pixels import Pixels

Flow = NDArray[np.float32]
"""Displacements, (height, width, 2)."""


def flow_between(start: Pixels, end: Pixels) -> Flow:
    """Return the displacement of each pixel of `start` to the same thing in `end`, a picture of the same size.

    Dense inverse search: Kroeger et al., "Fast optical flow using dense inverse search" (2016).
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    # Down to single pixels, the error is a third of that of the preset. The time is negligible beside a stylisation.
    search.setFinestScale(0)
    grey = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in (start, end)]
    # The stubs do not know that there may be no flow to begin with.
    return np.asarray(search.calc(*grey, None), np.float32)  # type: ignore[call-overload]


def warp(previous: Pixels, backward: Flow, beyond: Pixels | None = None) -> Pixels:
    """Return the previous picture, warped to the present one.

    Args:
        previous: the previous picture.
        backward: the flow from the present picture to the previous one.
        beyond: the picture to show where the flow leads outside. Default: the border of the previous picture.
    """
    # Softer interpolation than cubic would blur more with every frame.
    moved = np.asarray(_sampled(previous, backward, cv2.INTER_CUBIC), np.uint8)
    return moved if beyond is None else np.where(_ends_inside(backward)[..., np.newaxis], moved, beyond)


def reliable(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    """Return where a flow is reliable: the pixel was visible before, and moves like its surroundings.

    Args:
        backward: from the present picture to the previous one.
        forward: from the previous picture to the present one.
    """
    return _ends_inside(backward) & _is_consistent(backward, forward) & ~_is_boundary(backward)


def _is_consistent(backward: Flow, forward: Flow) -> NDArray[np.bool_]:
    """Return where the flows forward and backward cancel each other (Ruder et al., equation 5)."""
    returned = np.asarray(_sampled(forward, backward, cv2.INTER_LINEAR), np.float32)
    gap = _squared(returned + backward)
    return np.asarray(gap <= 0.01 * (_squared(returned) + _squared(backward)) + 0.5)


def _is_boundary(flow: Flow) -> NDArray[np.bool_]:
    """Return the motion boundaries, where the flow is blurred (Ruder et al., equation 6)."""
    slopes = sum(_squared(np.gradient(flow, axis=axis)) for axis in (0, 1))
    return np.asarray(slopes > 0.01 * _squared(flow) + 0.002)


def _ends_inside(flow: Flow) -> NDArray[np.bool_]:
    """Return where the displacement ends inside the picture."""
    height, width = flow.shape[:2]
    ends = _grid(flow) + flow
    # The border pixels reach half a pixel beyond their centres.
    return np.asarray(((ends >= -0.5) & (ends <= (width - 0.5, height - 0.5))).all(-1))


def _sampled(values: NDArray[Any], flow: Flow, interpolation: int) -> NDArray[Any]:
    """Return the values at the ends of the displacements; outside, those of the nearest pixel."""
    ends = _grid(flow) + flow
    return np.asarray(cv2.remap(values, ends, None, interpolation, borderMode=cv2.BORDER_REPLICATE))  # type: ignore[call-overload]


def _grid(flow: Flow) -> Flow:
    """Return the coordinates of each pixel."""
    height, width = flow.shape[:2]
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _squared(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the squared length of each vector."""
    return np.asarray(np.square(vectors).sum(axis=-1))
