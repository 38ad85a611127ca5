"""The options of a stylisation, with every default and every accepted range: the one place where they stand."""

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from nst_service.engine.choices import (
    ColorMode,
    Init,
    OptimizerKind,
    OutputFormat,
    Padding,
    Pooling,
    Preset,
    StyleStatisticKind,
)
from nst_service.engine.errors import Violation
from nst_service.engine.network.plan import Variant
from nst_service.engine.pictures.formats import WRITTEN_FORMATS


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of accepted values."""

    low: float
    """The lowest accepted value, or the lower bound where `open_low` holds."""
    high: float
    """The highest accepted value."""
    open_low: bool = False
    """Whether `low` itself is refused."""

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return above and value <= self.high

    def __str__(self) -> str:
        return f"above {self.low}, at most {self.high}" if self.open_low else f"{self.low} to {self.high}"


WEIGHT = Range(0, 10**12)
"""Accepted weights of a loss or of a layer."""

EDGE = Range(0, WRITTEN_FORMATS[OutputFormat.JPEG].longest_edge)
"""Accepted longest edges of a result in pixels: as much as a JPEG holds."""

_LARGEST_ZERO = 2.0**-150
"""The largest number that is rounded to 0 in float32: half of its smallest number, which is 2 ** -149."""

_RANGES_ONLY: Mapping[str, float] = MappingProxyType({})

LayerWeights = Mapping[str, float]
"""Weight of each layer by its name."""

KEEP_SIZE = 0
"""The `image_size` that keeps the size of the content picture."""

DEFAULT_LEARNING_RATES = MappingProxyType({OptimizerKind.LBFGS: 1.0, OptimizerKind.ADAM: 0.02})
"""Learning rate of each optimiser where `learning_rate` is not given."""


_STRONGEST = 100.0
"""Factor of `strength` 1 on the style weight; 0 divides by it."""

_BOLDEST = 2.0
"""Factor of `stroke_size` 1 on the size of the styles; 0 divides by it."""

_MAX_SCALES = 8

_BALANCED: Mapping[str, Any] = MappingProxyType(
    {
        "normalize": True,
        "content_weight": 1.0,
        "style_weight": 6.0,
        "tv_weight": 1.0,
        # Covariances carry the palette and the contrast of the strokes. Shallow layers count most: they hold the
        # strokes. relu5_1 is left out: it pastes objects of the style into the picture.
        "style_loss": StyleStatisticKind.MOMENTS,
        "style_layers": {"relu1_1": 3.0, "relu2_1": 1.0, "relu3_1": 0.5, "relu4_1": 0.3},
        "pooling": Pooling.MAX,
        "padding": Padding.REFLECT,
        # As many as the pictures have room for: every size of a result begins with the same coarse picture.
        "scales": 4,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """The options of a transfer. Weights and layers are those of the objective in `criterion`.

    The defaults here are those of the preset "reference"; `from_preset` gives those of any preset.
    """

    preset: Preset = Preset.REFERENCE
    """The preset that options are taken from that were not given."""
    content_weight: Annotated[float, WEIGHT] = 5.0
    """Weight of the content loss."""
    style_weight: Annotated[float, WEIGHT] = 100.0
    """Weight of the style loss."""
    strength: Annotated[float, Range(0, 1)] = 0.5
    """How much of a painting the result is: from nearly the content picture (0) to nearly a texture of the style (1).
    See `strength_factor`."""
    stroke_size: Annotated[float, Range(0, 1)] = 0.5
    """Size of the strokes, from fine (0) to bold (1). See `stroke_factor`."""
    tv_weight: Annotated[float, WEIGHT] = 1e-3
    """Weight of the total variation."""
    laplacian_weight: Annotated[float, WEIGHT] = 0.0
    """Weight of the Laplacian loss."""
    temporal_weight: Annotated[float, WEIGHT] = 1.0
    """Weight of the temporal loss, which counts only where there is a reference picture."""
    content_layers: LayerWeights = field(default_factory=lambda: {"relu4_2": 1.0})
    """Weight of each layer in the content loss."""
    style_layers: LayerWeights = field(default_factory=lambda: {f"relu{block}_1": 1.0 for block in range(1, 6)})
    """Weight of each layer in the style loss."""
    style_loss: StyleStatisticKind = StyleStatisticKind.GRAM
    """The statistic of features that the style loss compares."""
    normalize: bool = False
    """Whether every term is free of scale: features are divided by their mean activation (see
    `Vgg19.activation_scales`), Gram matrices are not divided by the number of channels, and the total variation is a
    mean over the pixels in [0, 1]."""
    pooling: Pooling = Pooling.MAX
    """The operation that reduces the resolution between two blocks of the network."""
    padding: Padding = Padding.ZERO
    """The values that a convolution reads beyond the edge of its input."""
    color: ColorMode = ColorMode.STYLE
    """The source of the colours of the result."""
    iterations: Annotated[int, Range(1, 100_000)] = 500
    """Evaluations of the objective, over all scales."""
    scales: Annotated[int, Range(1, _MAX_SCALES)] = 1
    """Number of sizes that are worked on one after the other, each twice as large as the one before."""
    scale_iterations: tuple[int, ...] = ()
    """Iterations of each scale, coarse to fine; if empty, `iterations` are divided equally."""
    optimizer: OptimizerKind = OptimizerKind.LBFGS
    """The optimiser that changes the pixels."""
    learning_rate: Annotated[float | None, Range(0, 10, open_low=True)] = None
    """Factor on the steps of the optimiser; None stands for its own, out of `DEFAULT_LEARNING_RATES`."""
    lbfgs_history: Annotated[int, Range(1, 100)] = 10
    """Number of past steps that L-BFGS learns the curvature from."""
    averaging: Annotated[float, Range(0, 0.999)] = 0.0
    """Decay of the moving average of iterates that previews and the result show; 0 shows an iterate itself."""
    min_improvement: Annotated[float, Range(0, 1)] = 0.0
    """Share of the loss: a scale ends when ten iterations lower it by less. With 0 that ends no scale."""
    time_budget_seconds: Annotated[float, Range(0, 10**6)] = 0.0
    """Seconds of optimisation, over all scales; 0 for as long as it takes."""
    init: Init = Init.CONTENT
    """The picture that the optimisation starts from."""
    image_size: Annotated[int, EDGE] = 512
    """Longest edge of the result in pixels, or KEEP_SIZE."""
    min_image_size: Annotated[int, EDGE] = 0
    """Smallest allowed longest edge in pixels of a result that is reduced because memory is short; 0 disables that."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Seed of all random numbers."""
    preview_every: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Number of iterations between two previews; 0 disables them."""
    preview_size: Annotated[int, Range(16, 1024)] = 256
    """Longest edge of previews in pixels."""

    @classmethod
    def from_preset(cls, preset: Preset, **given: Any) -> "TransferOptions":
        """Return the options of a preset, with those that are given and what follows from them."""
        if shares := given.get("scale_iterations"):
            given = {"scales": len(shares), "iterations": sum(shares), **given}
        options = cls(preset=preset, **{**PRESETS[preset], **given})
        if "scales" not in given and 1 <= options.iterations < options.scales:
            # Each scale needs an iteration.
            return dataclasses.replace(options, scales=options.iterations)
        return options

    def completed(self) -> "TransferOptions":
        """Return the options with every default that depends on another option filled in."""
        options = self
        if options.learning_rate is None:
            options = dataclasses.replace(options, learning_rate=DEFAULT_LEARNING_RATES[options.optimizer])
        if not options.scale_iterations:
            share, rest = divmod(options.iterations, options.scales)
            # The remainder goes to the coarse scales: they are cheap.
            shares = tuple(share + (scale < rest) for scale in range(options.scales))
            options = dataclasses.replace(options, scale_iterations=shares)
        return options

    @property
    def variant(self) -> Variant:
        """The variant of the network: how its weights are applied."""
        return Variant(self.pooling, self.padding)

    @property
    def curvature_pairs(self) -> int:
        """The number of curvature pairs, one for each past step, that L-BFGS keeps at most; 0 for other optimisers."""
        return min(self.lbfgs_history, self.iterations) if self.optimizer is OptimizerKind.LBFGS else 0

    @property
    def strength_factor(self) -> float:
        """The factor of `strength` on the style weight, from 1/100 to 100, and 1 for a strength of 0.5."""
        return float(_STRONGEST ** (2 * self.strength - 1))

    @property
    def stroke_factor(self) -> float:
        """The factor of `stroke_size` on the size of every style, from 1/2 to 2, and 1 for a stroke size of 0.5."""
        return float(_BOLDEST ** (2 * self.stroke_size - 1))

    @property
    def active_layers(self) -> frozenset[str]:
        """Layers that some term of the objective with a weight above zero needs."""
        return frozenset(self.active_content_layers) | frozenset(self.active_style_layers)

    @property
    def active_content_layers(self) -> LayerWeights:
        """Content layers with a weight above zero, their weights multiplied by `content_weight`."""
        return _scaled(self.content_layers, self.content_weight)

    @property
    def active_style_layers(self) -> LayerWeights:
        """Style layers with a weight above zero, their weights multiplied by `style_weight` and `strength_factor`."""
        return _scaled(self.style_layers, self.strength_factor * self.style_weight)


PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        Preset.REFERENCE: {},
        Preset.BALANCED: _BALANCED,
        Preset.FAST: {**_BALANCED, "iterations": 100},
        Preset.TEXTURE: {**_BALANCED, "content_weight": 0.0, "init": Init.RANDOM},
        # Where the features say little, noise would stay.
        Preset.RECONSTRUCT: {
            "normalize": True,
            "content_weight": 1.0,
            "style_weight": 0.0,
            "tv_weight": 3.0,
            "pooling": Pooling.AVERAGE,
            "padding": Padding.REFLECT,
            "init": Init.RANDOM,
        },
    }
)
"""Options of each preset that differ from the reference: the objective of Gatys, Ecker & Bethge as neural-style
scales it."""


DEFAULT_PRESET = Preset.BALANCED
"""The preset of a request that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleOptions:
    """The options of one style picture."""

    weight: Annotated[float, Range(0, WEIGHT.high, open_low=True)] = 1.0
    """Share among all styles; the shares are normalised to sum to one."""
    scale: Annotated[float, Range(0.1, 4)] = 1.0
    """Longest edge as a multiple of the content's longest edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """The options of the result file."""

    format: OutputFormat = OutputFormat.PNG
    """The file format."""
    quality: Annotated[int, Range(1, 100)] = 95
    """Quality of JPEG and WebP."""
    bits: Annotated[int, Range(8, 16)] = 8
    """Bits per channel: 8, or 16 in PNG and TIFF."""
    metadata: bool = True
    """Whether the file says how it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a server."""

    max_input_pixels: int
    """Most pixels, width times height, of one picture in a request."""
    max_request_pixels: int
    """Most pixels of all pictures in a request together, as they are sent and at their working sizes."""
    max_image_size: int
    """Longest accepted edge of a result in pixels."""
    max_iterations: int
    """Most iterations of a transfer."""
    max_styles: int
    """Most styles of a transfer."""


NO_LIMITS = Limits(
    max_input_pixels=sys.maxsize,
    max_request_pixels=sys.maxsize,
    max_image_size=sys.maxsize,
    max_iterations=sys.maxsize,
    max_styles=sys.maxsize,
)
"""The limits of a request that a server has accepted before."""


def range_violations(
    options: TransferOptions | StyleOptions | OutputOptions, path: str, highest: Mapping[str, float] = _RANGES_ONLY
) -> Iterator[Violation]:
    """Yield a violation for each numeric option that is not in its range.

    Args:
        options: the options to check.
        path: the path of the options in the request.
        highest: the highest values that this server accepts, where they are lower than those of the ranges.
    """
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        if get_origin(hint) is Annotated and value is not None:
            accepted: Range = get_args(hint)[1]
            if name in highest:
                accepted = dataclasses.replace(accepted, high=min(accepted.high, highest[name]))
            if value not in accepted:
                limited = name in highest and value > accepted.high
                description = (
                    f"this server accepts at most {accepted.high}" if limited else f"accepted values are {accepted}"
                )
                yield Violation(f"{path}.{name}", f"is {value}; {description}")


def transfer_violations(options: TransferOptions, limits: Limits, available: Collection[str]) -> Iterator[Violation]:
    """Yield a violation for each thing that is wrong with the options of a transfer.

    Args:
        options: options to check.
        limits: limits of the server.
        available: layers that the network has.
    """
    highest = {"iterations": limits.max_iterations, "image_size": limits.max_image_size}
    yield from range_violations(options, "options", highest)
    yield from _schedule_violations(options)
    for name in ("content_layers", "style_layers"):
        yield from _layer_violations(f"options.{name}", getattr(options, name), available)
    if limits != NO_LIMITS:  # A job that an earlier release has accepted continues.
        yield from _weight_violations(options)
    if not options.active_layers:
        yield Violation(
            "options.content_weight", "leaves nothing to optimise: no content or style layer has a weight above 0"
        )


def output_violations(output: OutputOptions) -> Iterator[Violation]:
    """Yield a violation for each thing that is wrong with the output options."""
    yield from range_violations(output, "output")
    written = WRITTEN_FORMATS[output.format]
    if 8 <= output.bits <= 16 and output.bits not in written.written_bits:
        accepted = " or ".join(map(str, written.written_bits))
        yield Violation("output.bits", f"is {output.bits}; {written.name} has {accepted} bits per channel")


def _schedule_violations(options: TransferOptions) -> Iterator[Violation]:
    path, shares = "options.scale_iterations", options.scale_iterations
    if not shares:
        if 1 <= options.iterations < options.scales <= 8:
            least = f"each of the {options.scales} scales needs at least 1"
            yield Violation("options.iterations", f"is {options.iterations}; {least}")
        return
    if len(shares) != options.scales:
        needed = f"it needs one for each scale, and options.scales is {options.scales}"
        yield Violation(path, f"has {len(shares)} entries; {needed}")
    elif min(shares) < 1:
        yield Violation(path, f"has an entry of {min(shares)}; accepted values are 1 and above")
    elif sum(shares) != options.iterations:
        yield Violation(path, f"adds up to {sum(shares)}; the sum must be options.iterations, {options.iterations}")


def _layer_violations(path: str, layers: LayerWeights, available: Collection[str]) -> Iterator[Violation]:
    for layer, weight in layers.items():
        if layer not in available:
            yield Violation(path, f"names an unknown layer {layer[:32]!r}; accepted layers are {', '.join(available)}")
        elif weight not in WEIGHT:
            yield Violation(path, f"gives {layer} a weight of {weight}; accepted weights are {WEIGHT}")


def _weight_violations(options: TransferOptions) -> Iterator[Violation]:
    """Yield a violation for each weight above 0 that becomes 0 in float32, in which losses are computed."""
    for name in ("content_weight", "style_weight", "tv_weight", "laplacian_weight", "temporal_weight"):
        if 0 < getattr(options, name) <= _LARGEST_ZERO:
            value = getattr(options, name)
            yield Violation(f"options.{name}", f"is {value}, which is 0 in float32; accepted values are {WEIGHT}")
    for name, factor in (("content", options.content_weight), ("style", options.style_weight)):
        for layer, weight in getattr(options, f"{name}_layers").items():
            if factor > _LARGEST_ZERO and weight > 0 and weight * factor <= _LARGEST_ZERO:
                total = f"{weight} times {name}_weight, {factor},"
                yield Violation(f"options.{name}_layers", f"gives {layer} a weight of {total} which is 0 in float32")


def _scaled(layers: LayerWeights, factor: float) -> dict[str, float]:
    return {layer: factor * weight for layer, weight in layers.items() if factor * weight > 0}
