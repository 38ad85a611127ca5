"""The options of a stylisation.

An option that is None (or empty) is left to the server. `ServerInfo` has every default and limit, and `Accepted` has
the values that a job really uses.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

Picture = bytes | str | os.PathLike[str]
"""An encoded picture, in a format of `ServerInfo.input_media_types`: its bytes or the path of its file."""

Layers = Mapping[str, float | None] | Sequence[str]
"""Names of layers of VGG-19 ("relu4_2", "conv1_1" ...), with or without the weight of each. Range: 0 to 1e12."""


class Optimizer(StrEnum):
    """The optimiser that changes the pixels."""

    LBFGS = "lbfgs"
    """Limited-memory BFGS. It reaches the least loss in a given number of iterations."""
    ADAM = "adam"
    """Adam. It needs less memory."""


class Init(StrEnum):
    """The picture that the optimisation starts from."""

    CONTENT = "content"
    """The content picture."""
    RANDOM = "random"
    """Noise drawn from the seed."""
    STYLE = "style"
    """The first style picture, stretched to the working size."""
    PICTURE = "picture"
    """The picture given as `init_picture`, stretched to the working size."""


class Preset(StrEnum):
    """A set of options that belong together. Options that are omitted are taken from the preset."""

    BALANCED = "balanced"
    """The default, which looks best on most pictures."""
    REFERENCE = "reference"
    """The objective of Gatys, Ecker & Bethge in the scaling of neural-style, on one scale."""
    FAST = "fast"
    """Options that take a fifth of the time of `BALANCED`."""
    TEXTURE = "texture"
    """A texture of the style, made from noise. The content only determines the size."""
    RECONSTRUCT = "reconstruct"
    """The content, reconstructed from noise without any style."""


class StyleLoss(StrEnum):
    """The statistic that is matched to the style at each style layer."""

    GRAM = "gram"
    """The Gram matrix of the features."""
    MOMENTS = "moments"
    """The means and covariances of the features."""
    SLICED_WASSERSTEIN = "sliced_wasserstein"
    """The whole distribution of the features, projected onto 32 directions."""


class Pooling(StrEnum):
    """The pooling between the blocks of the network."""

    MAX = "max"
    """The largest of four values."""
    AVERAGE = "average"
    """The mean of four values, which gives smoother pictures."""
    L2 = "l2"
    """The root mean square of four values, between the two others."""


class Padding(StrEnum):
    """The values that the network sees beyond the edge of the picture."""

    ZERO = "zero"
    """Zeros, with which the network was trained."""
    REFLECT = "reflect"
    """The features, mirrored at the edge. The picture gets no frame, for more memory and time."""


class ColorMode(StrEnum):
    """The source of the colours of the result."""

    STYLE = "style"
    """The colours come from the style."""
    MATCH = "match"
    """The colours come from the content. The colours of the styles are matched to those of the content beforehand."""
    LUMINANCE = "luminance"
    """The colours come from the content. Only the luminance is transferred."""
    YIQ = "yiq"
    """The colours come from the content: its I and Q are combined with the luma of the finished picture."""
    LAB = "lab"
    """The colours come from the content: its a* and b* are combined with the lightness of the finished picture."""


class PictureFormat(StrEnum):
    """The file format of a result."""

    PNG = "png"
    """PNG: lossless, 8 or 16 bits per channel, with transparency."""
    JPEG = "jpeg"
    """JPEG: lossy, with transparency flattened on white."""
    WEBP = "webp"
    """WebP: lossy, with transparency."""
    TIFF = "tiff"
    """TIFF: lossless, 8 or 16 bits per channel, with transparency."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """One style picture, with its share, its size and its place."""

    picture: Picture = field(kw_only=False)
    """The style picture."""
    weight: float | None = None
    """Share among all styles of the request. The shares are normalised to sum to one. Range: above 0."""
    mask: Picture | None = None
    """White where this style applies, grey at soft edges. Default: the style applies everywhere."""
    scale: float | None = None
    """Longest edge as a multiple of the content's longest edge. Larger values give larger strokes. Range: 0.1 to 4."""


Styles = Picture | Style | Sequence[Picture | Style]
"""One style, or several styles that are blended."""


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """The options of the optimisation."""

    preset: Preset | None = None
    """The preset from which omitted options are taken."""
    content_weight: float | None = None
    """Weight of the content loss. Range: 0 to 1e12."""
    style_weight: float | None = None
    """Weight of the style loss. Range: 0 to 1e12, but not 0 together with `content_weight`."""
    strength: float | None = None
    """How much of a painting the result is, from nearly the content picture (0) to nearly a texture of the style (1).
    It is a factor on `style_weight`. Range: 0 to 1."""
    stroke_size: float | None = None
    """Size of the strokes, from fine (0) to bold (1). It is a factor on the `scale` of every style. Range: 0 to 1."""
    tv_weight: float | None = None
    """Weight of the total variation. Larger values give smoother pictures. Range: 0 to 1e12."""
    laplacian_weight: float | None = None
    """Weight of the Laplacian loss. Larger values preserve contours. Range: 0 to 1e12."""
    temporal_weight: float | None = None
    """Weight of the difference from the `reference`. Range: 0 to 1e12."""
    content_layers: Layers = ()
    """Layers whose features are kept from the content picture."""
    style_layers: Layers = ()
    """Layers whose features are matched to the style."""
    style_loss: StyleLoss | None = None
    """The statistic that is matched to the style."""
    normalize: bool | None = None
    """Whether every term is made scale-free, so that the same weights serve every network and size."""
    pooling: Pooling | None = None
    """The pooling between the blocks of the network."""
    padding: Padding | None = None
    """The values that the network sees beyond the edge of the picture."""
    color: ColorMode | None = None
    """The source of the colours of the result."""
    iterations: int | None = None
    """Optimiser steps over all scales. Each step evaluates the objective and its gradient once. Range: 1 to the
    server's limit."""
    scales: int | None = None
    """Number of sizes that are optimised one after the other, each twice as large as the one before. Range: 1 to 8."""
    scale_iterations: Sequence[int] = ()
    """Iterations of each scale, coarse to fine. They determine `scales` and `iterations`. Empty: the same for each."""
    optimizer: Optimizer | None = None
    """The optimiser that changes the pixels."""
    learning_rate: float | None = None
    """Step size: for L-BFGS the factor of its step, for Adam the largest change of a pixel on the 0..1 scale.
    Range: above 0, at most 10."""
    lbfgs_history: int | None = None
    """Past steps that L-BFGS keeps to approximate the curvature. Range: 1 to 100."""
    averaging: float | None = None
    """Decay of the moving average of iterates that previews and the result show. Range: 0 to 0.999."""
    min_improvement: float | None = None
    """Share of its loss. A scale ends when ten iterations lower its loss by less; 0 disables this. Range: 0 to 1."""
    time_budget_seconds: float | None = None
    """Seconds of optimisation over all scales, excluding turns of other jobs on the device; 0 for no limit.
    Range: 0 to 1e6."""
    init: Init | None = None
    """The picture that the optimisation starts from."""
    image_size: int | None = None
    """Longest edge of the result in pixels; 0 keeps the size of the content picture. Range: 0 to the server's limit."""
    min_image_size: int | None = None
    """Smallest allowed longest edge of the result in pixels when memory is short, even for tiles (see
    `CostEstimate.reduced_from` and the event `Reduced`); 0 disables downsizing. Range: 0, or the smallest size that the
    layers accept to the longest edge that is asked for."""
    seed: int | None = None
    """Seed of every random choice. The same request with the same seed gives the same bytes on the same machine.
    Range: 0 to 2**63 - 1."""
    preview_every: int | None = None
    """Iterations from preview to preview; 0 disables previews. Range: 0 and above."""
    preview_size: int | None = None
    """Longest edge of previews in pixels. Previews are never larger than the result. Range: 16 to 1024."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """The options of the encoded result."""

    format: PictureFormat | None = None
    """The file format."""
    quality: int | None = None
    """Quality of JPEG and WebP; the other formats ignore it. Range: 1 to 100."""
    bits: int | None = None
    """Bits per channel: 8, or 16 in PNG and TIFF."""
    metadata: bool | None = None
    """Whether the file records how it was made (see `nst_client.metadata`)."""
