"""The cost of a transfer, known before it runs: its operations, and the memory that it will hold."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nst_service.engine.memory.fit import ANY_MEMORY, Memory, fitting_tile
from nst_service.engine.network.layers import KERNEL_SHAPES, convs_through, features_shape
from nst_service.engine.network.tiles import halo_of, spans
from nst_service.engine.options import TransferOptions
from nst_service.engine.outline import TransferOutline
from nst_service.engine.scales import schedule, step_pixels
from nst_service.engine.sizes import Size, scaled


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a transfer."""

    work: float
    """Operations of its targets and of all its steps (see `step_work`)."""
    peak_bytes: int
    """The most memory that is held on the device at once, the weights of the network not counted."""
    tile_size: int | None
    """Edge of the tiles in pixels, or None where pictures are taken as a whole."""
    time_budget_seconds: float = 0.0
    """Seconds that it may take; 0 for any number."""


def estimate(outline: TransferOutline, memory: Memory = ANY_MEMORY) -> Cost:
    """Plan a transfer for the memory there is, and estimate its cost.

    Where not even the smallest tiles fit, the cost is that with the smallest, and its `peak_bytes` is more than
    available.
    """
    options, size, styles = outline.options, outline.size, outline.styles
    tile_size, peak_bytes = fitting_tile(options, size, styles, memory)
    work = 0.0
    for scale in schedule(size, options.scale_iterations):
        factor = max(scale.size) / max(size)
        work += sum(_forward_flops(scaled(style, factor), options.active_style_layers, tile_size) for style in styles)
        work += _forward_flops(scale.size, options.active_content_layers, tile_size)
        work += scale.iterations * step_work(options, scale.size, tile_size)
    return Cost(work, peak_bytes, tile_size, options.time_budget_seconds)


def step_work(options: TransferOptions, size: Size, tile_size: int | None) -> float:
    """Return the cost of one step in operations: its own, and as many more as take the time of the rest of the step."""
    return step_flops(options, size, tile_size) * step_pixels(size) / math.prod(size)


def step_flops(options: TransferOptions, size: Size, tile_size: int | None) -> float:
    """Return the operations of one step: the objective and its gradient, which costs as much as the features."""
    passes = 2 if tile_size is None else 3
    return passes * _forward_flops(size, options.active_layers, tile_size)


def forward_flops(size: Size, layers: Iterable[str]) -> float:
    """Return the operations of all convolutions up to the last of the layers."""
    layers = tuple(layers)
    if not layers:
        return 0.0
    return sum(
        2.0 * math.prod(KERNEL_SHAPES[conv]) * math.prod(features_shape(size, conv)) for conv in convs_through(layers)
    )


def _forward_flops(size: Size, layers: Iterable[str], tile_size: int | None) -> float:
    layers = tuple(layers)
    flops = forward_flops(size, layers)
    if tile_size is None or not layers:
        return flops
    halo = halo_of(layers)
    # What lies in several halos is computed as often.
    return flops * math.prod(sum(len(span) for span, _ in spans(edge, tile_size, halo)) / edge for edge in size)
