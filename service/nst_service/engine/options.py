"""What a stylisation can be told, with every default and every accepted range: the one place where they stand."""

import dataclasses
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
    high: float
    open_low: bool = False
    """Whether `low` itself is refused."""

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        return above and value <= self.high

    def __str__(self) -> str:
        return f"above {self.low}, at most {self.high}" if self.open_low else f"{self.low} to {self.high}"


WEIGHT = Range(0, 10**12)
"""Of a loss or of a layer."""

EDGE = Range(0, WRITTEN_FORMATS[OutputFormat.JPEG].longest_edge)
"""Of the longest edge of a result, in pixels: as much as a JPEG holds."""

LayerWeights = Mapping[str, float]
"""Weight of each layer by its name."""

KEEP_SIZE = 0
"""The `image_size` that keeps the size of the content picture."""

DEFAULT_LEARNING_RATES = MappingProxyType({OptimizerKind.LBFGS: 1.0, OptimizerKind.ADAM: 0.02})
"""Where `learning_rate` is not given."""


_BALANCED: Mapping[str, Any] = MappingProxyType(
    {
        "normalize": True,
        "content_weight": 1.0,
        "style_weight": 0.5,
        "tv_weight": 1.0,
        "pooling": Pooling.AVERAGE,
        "padding": Padding.REFLECT,
        "scales": 3,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How to stylise. Weights and layers are those of the objective in `criterion`.

    The defaults here are those of the preset "reference"; `from_preset` gives those of any.
    """

    preset: Preset = Preset.REFERENCE
    """Where the options come from that were not given."""
    content_weight: Annotated[float, WEIGHT] = 5.0
    style_weight: Annotated[float, WEIGHT] = 100.0
    tv_weight: Annotated[float, WEIGHT] = 1e-3
    laplacian_weight: Annotated[float, WEIGHT] = 0.0
    temporal_weight: Annotated[float, WEIGHT] = 1.0
    """Counts only where there is a reference picture."""
    content_layers: LayerWeights = field(default_factory=lambda: {"relu4_2": 1.0})
    style_layers: LayerWeights = field(default_factory=lambda: {f"relu{block}_1": 1.0 for block in range(1, 6)})
    style_loss: StyleStatisticKind = StyleStatisticKind.GRAM
    normalize: bool = False
    """Whether every term is made free of scale: features are divided by their mean activation (see
    `Vgg19.activation_scales`), Gram matrices are not divided by the number of channels, and the total variation is a
    mean over the pixels in [0, 1]."""
    pooling: Pooling = Pooling.MAX
    padding: Padding = Padding.ZERO
    color: ColorMode = ColorMode.STYLE
    iterations: Annotated[int, Range(1, 100_000)] = 500
    """Evaluations of the objective, over all scales."""
    scales: Annotated[int, Range(1, 8)] = 1
    """Sizes that are worked on one after the other, each twice as large as the one before."""
    scale_iterations: tuple[int, ...] = ()
    """Iterations of each scale, coarse to fine; empty: as many at each."""
    optimizer: OptimizerKind = OptimizerKind.LBFGS
    learning_rate: Annotated[float | None, Range(0, 10, open_low=True)] = None
    """None: the optimiser's own, out of `DEFAULT_LEARNING_RATES`."""
    lbfgs_history: Annotated[int, Range(1, 100)] = 10
    averaging: Annotated[float, Range(0, 0.999)] = 0.0
    """Decay of the moving average of iterates that previews and the result show; 0 shows an iterate itself."""
    min_improvement: Annotated[float, Range(0, 1)] = 0.0
    """A scale ends when ten iterations lower its loss by less than this share; 0 never."""
    time_budget_seconds: Annotated[float, Range(0, 10**6)] = 0.0
    """Seconds of optimisation, over all scales; 0 for as long as it takes."""
    init: Init = Init.CONTENT
    image_size: Annotated[int, EDGE] = 512
    """Longest edge of the result in pixels, or KEEP_SIZE."""
    min_image_size: Annotated[int, EDGE] = 0
    """Longest edge in pixels down to which the result may be reduced where memory does not suffice; 0 not at all."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    preview_every: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Iterations between two previews; 0 for none."""
    preview_size: Annotated[int, Range(16, 1024)] = 256
    """Longest edge of previews in pixels."""

    @classmethod
    def from_preset(cls, preset: Preset, **given: Any) -> "TransferOptions":
        """Return the options of a preset, but for those that are given or follow from them."""
        if shares := given.get("scale_iterations"):
            given = {"scales": len(shares), "iterations": sum(shares), **given}
        return cls(preset=preset, **{**PRESETS[preset], **given})

    def completed(self) -> "TransferOptions":
        """Return the options with every default that depends on another option filled in."""
        options = self
        if options.learning_rate is None:
            options = dataclasses.replace(options, learning_rate=DEFAULT_LEARNING_RATES[options.optimizer])
        if not options.scale_iterations:
            share, rest = divmod(options.iterations, options.scales)
            # What cannot be shared goes to the coarse scales: they are cheap.
            shares = tuple(share + (scale < rest) for scale in range(options.scales))
            options = dataclasses.replace(options, scale_iterations=shares)
        return options

    @property
    def variant(self) -> Variant:
        """How the weights of the network are applied."""
        return Variant(self.pooling, self.padding)

    @property
    def curvature_pairs(self) -> int:
        """The number of curvature pairs, one for each past step, that L-BFGS keeps at most; 0 for other optimisers."""
        return min(self.lbfgs_history, self.iterations) if self.optimizer is OptimizerKind.LBFGS else 0

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
        """Style layers with a weight above zero, their weights multiplied by `style_weight`."""
        return _scaled(self.style_layers, self.style_weight)


PRESETS: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        Preset.REFERENCE: {},
        Preset.BALANCED: _BALANCED,
        Preset.FAST: {**_BALANCED, "iterations": 100},
        Preset.TEXTURE: {**_BALANCED, "content_weight": 0.0, "init": Init.RANDOM},
        # Where the features say little, noise would stay.
        Preset.RECONSTRUCT: {**_BALANCED, "style_weight": 0.0, "tv_weight": 3.0, "init": Init.RANDOM, "scales": 1},
    }
)
"""What each preset changes of the reference: the objective of Gatys, Ecker & Bethge in the scaling of neural-style."""


DEFAULT_PRESET = Preset.BALANCED
"""Where none is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleOptions:
    """How one style picture counts."""

    weight: Annotated[float, Range(0, WEIGHT.high, open_low=True)] = 1.0
    """Share among all styles; they are normalised to sum to one."""
    scale: Annotated[float, Range(0.1, 4)] = 1.0
    """Longest edge as a multiple of the content's longest edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """How the finished picture is encoded."""

    format: OutputFormat = OutputFormat.PNG
    quality: Annotated[int, Range(1, 100)] = 95
    """Of JPEG and WebP."""
    bits: Annotated[int, Range(8, 16)] = 8
    """Per channel: 8, or 16 in PNG and TIFF."""
    metadata: bool = True
    """Whether the file says how it was made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server refuses to exceed."""

    max_input_pixels: int
    """Width times height of one picture in a request."""
    max_image_size: int
    """Longest edge of a result in pixels."""
    max_iterations: int
    max_styles: int


def range_violations(options: TransferOptions | StyleOptions | OutputOptions, path: str) -> Iterator[Violation]:
    """Yield a violation for each numeric option that is not in its range, its field under the given path."""
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        if get_origin(hint) is Annotated and value is not None:
            accepted: Range = get_args(hint)[1]
            if value not in accepted:
                yield Violation(f"{path}.{name}", f"is {value}, accepted is {accepted}")


def transfer_violations(options: TransferOptions, limits: Limits, available: Collection[str]) -> Iterator[Violation]:
    """Yield everything that is wrong with the options, field by field.

    Args:
        options: what to check.
        limits: of the server.
        available: layers that the network has.
    """
    out_of_range = list(range_violations(options, "options"))
    yield from out_of_range
    for name, limit in (("iterations", limits.max_iterations), ("image_size", limits.max_image_size)):
        path, value = f"options.{name}", getattr(options, name)
        if value > limit and all(violation.field != path for violation in out_of_range):
            yield Violation(path, f"is {value}, this server accepts at most {limit}")
    yield from _schedule_violations(options)
    for name in ("content_layers", "style_layers"):
        yield from _layer_violations(f"options.{name}", getattr(options, name), available)
    if not options.active_layers:
        yield Violation(
            "options.content_weight", "no content or style layer has a weight above 0: there is nothing to optimise"
        )


def output_violations(output: OutputOptions) -> Iterator[Violation]:
    """Yield everything that is wrong with the output options."""
    yield from range_violations(output, "output")
    accepted = WRITTEN_FORMATS[output.format].written_bits
    if 8 <= output.bits <= 16 and output.bits not in accepted:
        choice = " or ".join(map(str, accepted))
        yield Violation("output.bits", f"is {output.bits}, accepted with {output.format} is {choice}")


def _schedule_violations(options: TransferOptions) -> Iterator[Violation]:
    path, shares = "options.scale_iterations", options.scale_iterations
    if not shares:
        if 1 <= options.iterations < options.scales <= 8:
            yield Violation("options.iterations", f"is {options.iterations}, fewer than the {options.scales} scales")
        return
    if len(shares) != options.scales:
        yield Violation(path, f"has {len(shares)} entries, expected is one for each of {options.scales} scales")
    elif min(shares) < 1:
        yield Violation(path, f"has an entry of {min(shares)}, accepted is 1 and above")
    elif sum(shares) != options.iterations:
        yield Violation(path, f"adds up to {sum(shares)}, expected are options.iterations, {options.iterations}")


def _layer_violations(path: str, layers: LayerWeights, available: Collection[str]) -> Iterator[Violation]:
    for layer, weight in layers.items():
        if layer not in available:
            yield Violation(path, f"unknown layer {layer[:32]!r}, accepted are {', '.join(available)}")
        elif weight not in WEIGHT:
            yield Violation(path, f"the weight of {layer} is {weight}, accepted is {WEIGHT}")


def _scaled(layers: LayerWeights, factor: float) -> dict[str, float]:
    return {layer: factor * weight for layer, weight in layers.items() if factor * weight > 0}
