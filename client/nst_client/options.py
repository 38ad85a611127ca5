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


class Preset(StrEnum):
    """Options that belong together; what is not given comes from there."""

    BALANCED = "balanced"
    """What looks best on most pictures. The default."""
    REFERENCE = "reference"
    """The objective of Gatys, Ecker & Bethge in the scaling of neural-style, on one scale."""
    FAST = "fast"
    """A fifth of the time of `BALANCED`."""
    TEXTURE = "texture"
    """A texture of the style out of noise; the content only gives the size."""
    RECONSTRUCT = "reconstruct"
    """The content out of noise, without any style."""


class StyleLoss(StrEnum):
    """What is matched to the style, at each style layer."""

    GRAM = "gram"
    """Gram matrices."""
    MOMENTS = "moments"
    """Means and covariances."""
    SLICED_WASSERSTEIN = "sliced_wasserstein"
    """Whole distributions, seen from 32 directions."""


class Pooling(StrEnum):
    """What stands between the blocks of the network."""

    MAX = "max"
    """The largest of four."""
    AVERAGE = "average"
    """The mean of four: smoother."""
    L2 = "l2"
    """The root of the mean of four squares: between the two."""


class Padding(StrEnum):
    """What the network sees beyond the edge of the picture."""

    ZERO = "zero"
    """Zeros, as the network was trained."""
    REFLECT = "reflect"
    """The features mirrored at the edge: no frame, for more memory and time."""


class ColorMode(StrEnum):
    """Where the colours of the result come from."""

    STYLE = "style"
    """From the style."""
    MATCH = "match"
    """From the content: the colours of the styles are moved to those of the content before."""
    LUMINANCE = "luminance"
    """From the content: only luminance is transferred."""
    YIQ = "yiq"
    """From the content: its I and Q with the luma of the finished picture."""
    LAB = "lab"
    """From the content: its a* and b* with the lightness of the finished picture."""


class PictureFormat(StrEnum):
    """File formats of a result."""

    PNG = "png"
    """Lossless, 8 bits per channel, keeps transparency."""
    JPEG = "jpeg"
    """Lossy, transparency flattened on white."""
    WEBP = "webp"
    """Lossy, keeps transparency."""
    TIFF = "tiff"
    """Lossless, 8 or 16 bits per channel, keeps transparency."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """One style picture and how much it counts."""

    picture: Picture = field(kw_only=False)
    """The style picture."""
    weight: float | None = None
    """Share among all styles of the request, which are normalised to sum to one. Range: above 0."""
    mask: Picture | None = None
    """White where this style applies, grey at soft edges; None for everywhere."""
    scale: float | None = None
    """Longest edge as a multiple of the content's longest edge; larger gives larger strokes. Range: 0.1 to 4."""


Styles = Picture | Style | Sequence[Picture | Style]
"""One style, or several that are blended."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """How to stylise."""

    preset: Preset | None = None
    """Where every option comes from that is not given."""
    content_weight: float | None = None
    """Weight of the content loss. Range: 0 to 1e12."""
    style_weight: float | None = None
    """Weight of the style loss. Range: 0 to 1e12; not 0 together with `content_weight`."""
    tv_weight: float | None = None
    """Weight of the total variation; larger gives smoother pictures. Range: 0 to 1e12."""
    laplacian_weight: float | None = None
    """Weight of the Laplacian loss; larger keeps contours. Range: 0 to 1e12."""
    temporal_weight: float | None = None
    """Weight of the difference from the `reference`. Range: 0 to 1e12."""
    content_layers: Layers = ()
    """Layers whose features are kept from the content picture."""
    style_layers: Layers = ()
    """Layers whose features are matched to the style."""
    style_loss: StyleLoss | None = None
    """What is matched to the style."""
    normalize: bool | None = None
    """Make every term free of scale, so that the same weights serve every network and size."""
    pooling: Pooling | None = None
    """What stands between the blocks of the network."""
    padding: Padding | None = None
    """What the network sees beyond the edge of the picture."""
    color: ColorMode | None = None
    """Where the colours of the result come from."""
    iterations: int | None = None
    """Optimiser steps over all scales, each one evaluation of the objective and its gradient. Range: 1 to the server's
    limit."""
    scales: int | None = None
    """Sizes that are worked on one after the other, each twice as large as the one before. Range: 1 to 8."""
    scale_iterations: Sequence[int] = ()
    """Iterations of each scale, coarse to fine; `scales` and `iterations` follow from them. Empty: as many at each."""
    optimizer: Optimizer | None = None
    """The optimiser that changes the pixels."""
    learning_rate: float | None = None
    """Step size: for L-BFGS a factor on its step, for Adam the largest change of a pixel on the 0..1 scale.
    Range: above 0, at most 10."""
    lbfgs_history: int | None = None
    """Past steps that L-BFGS keeps to approximate curvature. Range: 1 to 100."""
    averaging: float | None = None
    """Decay of the moving average of iterates that previews and the result show. Range: 0 to 0.999."""
    min_improvement: float | None = None
    """A scale ends when ten iterations have lowered its loss by less than this share; 0 never. Range: 0 to 1."""
    time_budget_seconds: float | None = None
    """Seconds of optimisation, over all scales; turns of other jobs on the device do not count. 0 for no limit.
    Range: 0 to 1e6."""
    init: Init | None = None
    """What the optimisation starts from."""
    image_size: int | None = None
    """Longest edge of the result in pixels; 0 keeps the size of the content picture. Range: 0 to the server's limit."""
    min_image_size: int | None = None
    """Longest edge in pixels down to which the result may be smaller than that where memory does not suffice, not even
    in tiles (see `CostEstimate.reduced_from` and the event `Reduced`); 0 never. Range: 0, or what the layers need to
    the longest edge that is asked for."""
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
    """Quality of JPEG and WebP; the others ignore it. Range: 1 to 100."""
    bits: int | None = None
    """Bits per channel: 8, or 16 in PNG and TIFF."""
    metadata: bool | None = None
    """Whether the file says how it was made (see `nst_client.metadata`)."""
