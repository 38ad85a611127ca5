"""What a stylisation can be told.

None (or empty) always means the server's default: `ServerInfo` has every default and limit, and `Accepted` has the
values that a job really uses.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Picture = bytes | str | os.PathLike[str]
"""An encoded picture (PNG, JPEG, WebP or TIFF): its bytes, or the path of its file."""

Layers = Mapping[str, float | None] | Sequence[str]
"""Layers of VGG-19 by name ("relu4_2", "conv1_1" ...), with or without the weight of each, from 0 to 1e12."""


class Optimizer(StrEnum):
    """The optimiser that changes the pixels."""

    LBFGS = "lbfgs"
    """Limited-memory BFGS: the least loss for a number of iterations."""
    ADAM = "adam"
    """Adam: less memory."""


class Init(StrEnum):
    """What the optimisation starts from."""

    CONTENT = "content"
    """The content picture."""
    RANDOM = "random"
    """Noise drawn from the seed."""
    STYLE = "style"
    """The first style picture, stretched to the working size."""
    PICTURE = "picture"
    """The picture given as `init_picture`, stretched to the working size."""


class PictureFormat(StrEnum):
    """File formats of a result."""

    PNG = "png"
    """Lossless, 8 bits per channel, keeps transparency."""
    JPEG = "jpeg"
    """Lossy, transparency flattened on white."""
    WEBP = "webp"
    """Lossy, keeps transparency."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """One style picture and how much it counts."""

    picture: Picture = field(kw_only=False)
    """The style picture."""
    weight: float | None = None
    """Share among all styles of the request, which are normalised to sum to one. Range: above 0."""
    scale: float | None = None
    """Longest edge as a multiple of the content's longest edge; larger gives larger strokes. Range: 0.1 to 4."""


Styles = Picture | Style | Sequence[Picture | Style]
"""One style, or several that are blended."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How to stylise."""

    content_weight: float | None = None
    """Weight of the content loss. Range: 0 to 1e12."""
    style_weight: float | None = None
    """Weight of the style loss. Range: 0 to 1e12; not 0 together with `content_weight`."""
    tv_weight: float | None = None
    """Weight of the total variation; larger gives smoother pictures. Range: 0 to 1e12."""
    content_layers: Layers = ()
    """Layers whose features are kept from the content picture."""
    style_layers: Layers = ()
    """Layers whose Gram matrices are matched to the style."""
    iterations: int | None = None
    """Optimiser steps, each one evaluation of the objective and its gradient. Range: 1 to the server's limit."""
    optimizer: Optimizer | None = None
    """The optimiser that changes the pixels."""
    learning_rate: float | None = None
    """Step size: for L-BFGS a factor on its step, for Adam the largest change of a pixel on the 0..1 scale.
    Range: above 0, at most 10."""
    lbfgs_history: int | None = None
    """Past steps that L-BFGS keeps to approximate curvature. Range: 1 to 100."""
    init: Init | None = None
    """What the optimisation starts from."""
    image_size: int | None = None
    """Longest edge of the result in pixels; 0 keeps the size of the content picture. Range: 0 to the server's limit."""
    seed: int | None = None
    """Seed of every random choice; the same request with the same seed gives the same bytes on the same machine.
    Range: 0 to 2**63 - 1."""
    preview_every: int | None = None
    """Iterations from preview to preview; 0 sends none. Range: 0 and above."""
    preview_size: int | None = None
    """Longest edge of previews in pixels; they are never larger than the result. Range: 16 to 1024."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How the finished picture is encoded."""

    format: PictureFormat | None = None
    """The file format."""
    quality: int | None = None
    """Quality of JPEG and WebP; PNG ignores it. Range: 1 to 100."""
