"""What a transfer will cost, before it runs, and how it fits into the memory there is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nst_service.engine.layers import KERNEL_SHAPES, conv_of, convs_through, features_size, minimum_edge, opens_block
from nst_service.engine.options import OptimizerName, TransferOptions
from nst_service.engine.pictures import Size, fit, scaled
from nst_service.engine.schedule import schedule
from nst_service.engine.spec import TransferSpec
from nst_service.engine.tiles import halo_of, spans

_FLOAT_BYTES = 4
_POOL_INDEX_BYTES = 8
_SAFETY = 1.15
"""Factor for what the formula leaves out: workspaces of convolutions, fragmentation."""
_PICTURES = 8
"""Pictures that an optimiser holds at once, beside the history of L-BFGS: pixels, gradients, the best so far ..."""
_TILES = (2048, 1024, 512, 256)
"""Edges of tiles that are tried, in pixels: the larger, the less is computed twice."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a transfer will cost."""

    target_flops: float
    """Operations before the first step of every scale."""
    optimize_flops: float
    """Operations of all steps."""
    peak_bytes: int
    """The most memory that is held on the device at once, the weights of the network not counted."""
    tile: int | None
    """Edge of the tiles in pixels, or None where pictures are taken as a whole."""
    time_budget_seconds: float = 0.0
    """Seconds that it may take; 0 for any number."""

    @property
    def flops(self) -> float:
        """Operations in all."""
        return self.target_flops + self.optimize_flops


def estimate(spec: TransferSpec, available: int | None = None) -> Cost:
    """Plan a transfer for the memory there is, and estimate what it will cost.

    Args:
        spec: what shall be done.
        available: bytes that it may hold on its device, or None for any number. Where not even the smallest tiles fit,
            the cost is that with the smallest, and its `peak_bytes` is more than available.
    """
    options, size = spec.options, spec.content.size
    styles = [style.picture.size for style in spec.styles]
    tile, peak = fitting_tile(options, size, styles, available)
    target_flops = optimize_flops = 0.0
    for scale in schedule(size, options.scale_iterations):
        factor = max(scale.size) / max(size)
        target_flops += sum(
            _forward_flops(scaled(style, factor), options.active_style_layers, tile) for style in styles
        )
        target_flops += _forward_flops(scale.size, options.active_content_layers, tile)
        optimize_flops += scale.iterations * step_flops(options, scale.size, tile)
    return Cost(target_flops, optimize_flops, peak, tile, options.time_budget_seconds)


def step_flops(options: TransferOptions, size: Size, tile: int | None) -> float:
    """Return the operations of one step: the objective and its gradient, which costs as much as the features."""
    passes = 2 if tile is None else 3
    return passes * _forward_flops(size, options.active_layers, tile)


def forward_flops(size: Size, layers: Iterable[str]) -> float:
    """Return the operations of all convolutions up to the last of the layers."""
    layers = tuple(layers)
    if not layers:
        return 0.0
    return sum(2.0 * math.prod(KERNEL_SHAPES[conv]) * _area(size, conv) for conv in convs_through(layers))


def peak_bytes(options: TransferOptions, size: Size, styles: Sequence[Size], tile: int | None = None) -> int:
    """Estimate the most memory that a transfer holds on its device at once, in bytes."""
    layers = options.active_layers
    convs = convs_through(layers) if layers else ()
    part, style_parts = size, list(styles)
    if tile is not None and layers:
        edge = tile + 2 * halo_of(layers)
        part = min(size[0], edge), min(size[1], edge)
        style_parts = [(min(style[0], edge), min(style[1], edge)) for style in styles]
    # Every activation is kept for the gradient; where a convolution is tapped, its ReLU is a second copy.
    activations = sum(
        _activation_bytes(part, conv) * (2 if conv in layers else 1)
        + (_FLOAT_BYTES + _POOL_INDEX_BYTES) * KERNEL_SHAPES[conv][1] * _area(part, conv) * opens_block(conv)
        for conv in convs
    )
    # On the way back, the gradient of a layer's output and of its input are held together.
    gradients = 2 * max((_activation_bytes(part, conv) for conv in convs), default=0)
    picture = 3 * size[0] * size[1] * _FLOAT_BYTES
    history = 2 * options.lbfgs_history if options.optimizer is OptimizerName.LBFGS else 0
    targets = sum(_activation_bytes(size, conv_of(layer)) for layer in options.active_content_layers)
    held = (_PICTURES + history) * picture + targets
    # The targets of styles keep no graph: two activations at a time.
    style = max((2 * _activation_bytes(edge, convs[0]) for edge in style_parts), default=0) if convs else 0
    return round(_SAFETY * (held + max(activations + gradients, style)))


def largest_size_within(available: int, options: TransferOptions, size: Size) -> int:
    """Return the largest longest edge of a picture of this shape whose transfer fits into the memory, in pixels.

    0 where not even the smallest picture fits.
    """
    low, high = 0, max(size)
    while low < high:
        edge = (low + high + 1) // 2
        smaller = fit(size, edge)
        if fitting_tile(options, smaller, [smaller], available)[1] <= available:
            low = edge
        else:
            high = edge - 1
    return low if low >= minimum_edge(options.active_layers) else 0


def fitting_tile(
    options: TransferOptions, size: Size, styles: Sequence[Size], available: int | None
) -> tuple[int | None, int]:
    """Return the largest tile that fits, None for the whole picture, and the peak of the memory with it."""
    tile: int | None = None
    peak = peak_bytes(options, size, styles)
    if available is None or peak <= available:
        return tile, peak
    for tile in _TILES:
        peak = peak_bytes(options, size, styles, tile)
        if peak <= available:
            break
    return tile, peak


def _forward_flops(size: Size, layers: Iterable[str], tile: int | None) -> float:
    layers = tuple(layers)
    flops = forward_flops(size, layers)
    if tile is None or not layers:
        return flops
    halo = halo_of(layers)
    # What lies in several halos is computed as often.
    return flops * math.prod(sum(len(span) for span, _ in spans(edge, tile, halo)) / edge for edge in size)


def _area(size: Size, layer: str) -> int:
    return math.prod(features_size(size, layer))


def _activation_bytes(size: Size, conv: str) -> int:
    return _FLOAT_BYTES * KERNEL_SHAPES[conv][0] * _area(size, conv)
