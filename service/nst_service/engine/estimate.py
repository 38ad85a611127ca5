"""What a transfer will cost, before it runs, and how it fits into the memory there is."""

import dataclasses
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch

from nst_service.engine.arena import NATIVE
from nst_service.engine.choices import OptimizerKind, Pooling, StyleStatisticKind
from nst_service.engine.network.bands import rows_at_once
from nst_service.engine.network.layers import (
    CONVS,
    KERNEL_SHAPES,
    conv_of,
    convs_through,
    features_size,
    minimum_edge,
    opening_pair,
    pooled_convs,
    relu_of,
)
from nst_service.engine.network.tiles import count_tiles, halo_of, spans
from nst_service.engine.objective.statistics import SLICED_DIRECTIONS
from nst_service.engine.options import TransferOptions
from nst_service.engine.scales import schedule, step_pixels
from nst_service.engine.sizes import Size, fit, scaled
from nst_service.engine.spec import TransferSpec

_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_PICTURES = 12
"""That an optimiser and the losses on pixels hold at once, beside the history of L-BFGS: pixels, gradients, the best so
far, the content, differences of neighbours, spectra ..."""
_SNAPSHOT_PICTURES = MappingProxyType({OptimizerKind.LBFGS: 5, OptimizerKind.ADAM: 7})
"""That a snapshot holds beside the history of L-BFGS and the average: where the optimiser stands, the best so far and
their gradients, where it goes, moments of Adam."""
_SNAPSHOT_TEXT = 2**15
"""Bytes: all of a snapshot that is no picture."""
_LARGEST_SNAPSHOT = 2**28
"""Bytes. From larger ones, what the optimiser has learnt is left out: it would take seconds and gigabytes."""
_FINISHING_PICTURES = 10
"""That the conversion of colours and the encoder hold at once."""
_TEMPORARIES = 5
"""Features of a layer that are held on the way back beside what is kept for it, without the native kernel: the
gradients by its output and by its input, and copies that are rectified or padded."""
_WORKSPACE, _NATIVE_WORKSPACE = 96 * 2**20, 24 * 2**20
"""Bytes: transforms of Winograd and scratch memory of libraries, by operations of torch and by the native kernel."""
_NATIVE_WORKSPACE_OF_A_THREAD = 4 * 2**20
"""Bytes that each thread of the native kernel takes beside that."""
_HEAP = 1.3
"""Memory of the process over what is alive in it: not every free piece of a heap fits what is wanted next, and
`devices.set_up_process` has the heap keep them."""
_TILES = (2048, 1024, 512, 256)
"""Edges of tiles that are tried, in pixels: the larger, the less is computed twice."""
_SHORT_HISTORY = 3
"""Steps from which L-BFGS still learns much of what it does from more."""
_CONSIDERABLY_LESS = 0.8
"""Share of the memory that may be left for a shorter history to be worth it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a transfer may hold on its device."""

    available: int = sys.maxsize
    """Bytes."""
    on_gpu: bool = False
    """Whether the device is a GPU, which keeps more for the way back than the native kernel does."""

    def share(self, share: float) -> "Memory":
        """Return a part of it."""
        return dataclasses.replace(self, available=round(share * self.available))


ANY_MEMORY = Memory()
"""More than there is."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a transfer will cost."""

    work: float
    """Of its targets and of all its steps, in operations (see `step_work`)."""
    peak_bytes: int
    """The most memory that is held on the device at once, the weights of the network not counted."""
    tile: int | None
    """Edge of the tiles in pixels, or None where pictures are taken as a whole."""
    time_budget_seconds: float = 0.0
    """Seconds that it may take; 0 for any number."""


def estimate(spec: TransferSpec, memory: Memory = ANY_MEMORY) -> Cost:
    """Plan a transfer for the memory there is, and estimate what it will cost.

    Where not even the smallest tiles fit, the cost is that with the smallest, and its `peak_bytes` is more than
    available.
    """
    options, size = spec.options, spec.content.size
    styles = [style.picture.size for style in spec.styles]
    tile, peak = fitting_tile(options, size, styles, memory)
    work = 0.0
    for scale in schedule(size, options.scale_iterations):
        factor = max(scale.size) / max(size)
        work += sum(_forward_flops(scaled(style, factor), options.active_style_layers, tile) for style in styles)
        work += _forward_flops(scale.size, options.active_content_layers, tile)
        work += scale.iterations * step_work(options, scale.size, tile)
    return Cost(work, peak, tile, options.time_budget_seconds)


def step_work(options: TransferOptions, size: Size, tile: int | None) -> float:
    """Return what one step costs, in operations: its own, and as many as the rest of it takes as long as."""
    return step_flops(options, size, tile) * step_pixels(size) / math.prod(size)


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


def peak_bytes(
    options: TransferOptions, size: Size, styles: Sequence[Size], tile: int | None = None, *, on_gpu: bool = False
) -> int:
    """Estimate the most memory that a transfer holds on its device at once, in bytes; rather too much than too little.

    The weights of the network are not counted, nor the pictures of the request.
    """
    layers, is_native = options.active_layers, NATIVE and not on_gpu
    picture = _picture_bytes(size)
    pictures = (_PICTURES + 2 * options.curvature_pairs) * picture
    targets = sum(_activation_bytes(size, conv_of(layer)) for layer in options.active_content_layers)
    statistics = _statistics_bytes(options, size, len(styles), tile)
    held = pictures + targets + statistics + _workspace_bytes(on_gpu=on_gpu)
    work = [_FINISHING_PICTURES * picture]
    if layers:
        work.append(_evaluation_bytes(options, size, tile, is_native=is_native))
    if style_layers := options.active_style_layers:
        parts = [_largest_part(style, tile, layers) for style in styles]
        work += [_features_bytes(part, style_layers, is_native=is_native) for part in parts]
    return round(_HEAP * (held + max(work))) + snapshot_bytes(options, size)


def least_bytes(*, on_gpu: bool = False) -> int:
    """Return what a transfer of any size holds on its device, in bytes: none makes do with less."""
    return round(_HEAP * _workspace_bytes(on_gpu=on_gpu))


def _workspace_bytes(*, on_gpu: bool) -> int:
    if NATIVE and not on_gpu:
        return _NATIVE_WORKSPACE + _NATIVE_WORKSPACE_OF_A_THREAD * torch.get_num_threads()
    return _WORKSPACE


def snapshot_bytes(options: TransferOptions, size: Size) -> int:
    """Estimate the most that a snapshot of a transfer has as bytes, which is what it holds on the device, too."""
    return _snapshot_bytes(options, size, history=keeps_history(options, size))


def keeps_history(options: TransferOptions, size: Size) -> bool:
    """Return whether snapshots of a transfer are to have what the optimiser has learnt."""
    return _snapshot_bytes(options, size, history=True) <= _LARGEST_SNAPSHOT


def _snapshot_bytes(options: TransferOptions, size: Size, *, history: bool) -> int:
    pictures = _SNAPSHOT_PICTURES[options.optimizer] + bool(options.averaging) + 2 * history * options.curvature_pairs
    return _SNAPSHOT_TEXT + pictures * _picture_bytes(size)


def _picture_bytes(size: Size) -> int:
    return 3 * math.prod(size) * _FLOAT_BYTES


def _evaluation_bytes(options: TransferOptions, size: Size, tile: int | None, *, is_native: bool) -> int:
    """Return what the network holds for an evaluation of the objective and its gradient."""
    layers = options.active_layers
    part = _largest_part(size, tile, layers)
    network = _native_bytes(options, part) if is_native else _network_bytes(options, part)
    if tile is None:
        return network
    # A core is copied out of the features of its tile, and the gradient by it into that by the tile.
    core = Size(min(size.width, tile), min(size.height, tile))
    share = rows_at_once(core.height) / core.height if is_native else 1
    return network + 3 * round(share * max(_activation_bytes(core, conv_of(layer)) for layer in layers))


def _network_bytes(options: TransferOptions, part: Size) -> int:
    """Return the most that the network holds by operations of torch: what it keeps for the way back, and gradients."""
    layers = options.active_layers
    convs = convs_through(layers)
    pooled = pooled_convs(convs)
    kept = 0
    for conv in convs:
        # Where the convolution itself is tapped, its ReLU is a second copy.
        kept += (2 if conv in layers else 1) * _activation_bytes(part, conv)
        if following := pooled.get(conv):
            kept += _pooling_bytes(part, following, options.pooling, is_native=False)
    return kept + _temporary_bytes(part, convs)


def _native_bytes(options: TransferOptions, part: Size) -> int:
    """Return the same with the native kernel, at the layer where it is the most."""
    layers = options.active_layers
    convs: Sequence[str] = convs_through(layers)
    pooled = pooled_convs(convs)
    share = rows_at_once(part.height) / part.height
    kept = most = 0
    if options.pooling is not Pooling.L2 and (opening := opening_pair(layers)):
        first, second = opening
        convs = convs[len(opening) :]
        # Of a band the features, the gradients by them, and what a loss adds.
        band = round(3 * share * _activation_bytes(part, first))
        kept = _bits_bytes(part, second)
        most = kept + band + _FLOAT_BYTES * _pooled_values(part, convs[0])
    for conv in convs:
        values, tapped = _activation_bytes(part, conv), {conv, relu_of(conv)} & layers
        kept += len(tapped) * values
        # Few inputs are convolved without noting bits.
        kept += _bits_bytes(part, conv) if conv != CONVS[0] else values * (not tapped)
        following = pooled.get(conv)
        passing = _passing_bytes(part, conv, following)
        if following and (tapped or options.pooling is Pooling.L2):
            kept += _pooling_bytes(part, following, options.pooling, is_native=True)
            kept += values * (relu_of(conv) not in tapped)
            passing += values
        most = max(most, kept + passing + (round(share * values) if tapped else 0))
    return most


def _features_bytes(part: Size, layers: Collection[str], *, is_native: bool) -> int:
    """Return what the network holds for features without a way back, which are looked at one by one."""
    convs = convs_through(layers)
    if is_native:
        pooled = pooled_convs(convs)
        return max(_passing_bytes(part, conv, pooled.get(conv)) for conv in convs)
    return _temporary_bytes(part, convs)


def _bits_bytes(part: Size, conv: str) -> int:
    """Return what it takes to note which outputs of a convolution passed its ReLU: 16 bits for each tile of 4x4."""
    width, height = features_size(part, conv)
    return 2 * KERNEL_SHAPES[conv][0] * -(-width // 4) * -(-height // 4)


def _temporary_bytes(part: Size, convs: Iterable[str]) -> int:
    return _TEMPORARIES * max(_activation_bytes(part, conv) for conv in convs)


def _passing_bytes(part: Size, conv: str, following: str | None) -> int:
    """Return what goes into a convolution and what comes out of it, pooled where one follows after a pooling."""
    inputs = _FLOAT_BYTES * KERNEL_SHAPES[conv][1] * _area(part, conv)
    if following is None:
        return inputs + _activation_bytes(part, conv)
    return inputs + _FLOAT_BYTES * _pooled_values(part, following)


def _pooled_values(part: Size, conv: str) -> int:
    """Return how many values come out of the pooling before a convolution."""
    return KERNEL_SHAPES[conv][1] * _area(part, conv)


def _pooling_bytes(part: Size, conv: str, pooling: Pooling, *, is_native: bool) -> int:
    """Return what the pooling before a convolution keeps for the way back, beside what it pools."""
    values = _pooled_values(part, conv)
    match pooling:
        case Pooling.MAX:
            return 0 if is_native else _INDEX_BYTES * values
        case Pooling.AVERAGE:
            return 0
        case Pooling.L2:
            # The squares of the four that each is made of, their mean, its root and what is not freed at once.
            return 7 * _FLOAT_BYTES * values


def _statistics_bytes(options: TransferOptions, size: Size, styles: int, tile: int | None) -> int:
    """Return what the statistics of the styles, of the picture and of its tiles take."""
    channels = {layer: KERNEL_SHAPES[conv_of(layer)][0] for layer in options.active_style_layers}
    if options.style_loss is StyleStatisticKind.SLICED_WASSERSTEIN:
        # Of each feature: its projections, part by part and together, sorted, their places, targets and slopes.
        values = SLICED_DIRECTIONS * sum(_area(size, layer) for layer in channels)
        return (5 * _FLOAT_BYTES + _INDEX_BYTES) * values
    matrices = _FLOAT_BYTES * sum(count * (count + 1) for count in channels.values())
    # Tiles have a statistic and a slope each.
    return matrices * (styles + 2 * (1 if tile is None else count_tiles(size, tile)))


def _largest_part(size: Size, tile: int | None, layers: Collection[str]) -> Size:
    """Return the size of the largest tile with its halo, or of the whole picture."""
    if tile is None:
        return size
    halo = halo_of(layers)
    width, height = (max(len(span) for span, _ in spans(edge, tile, halo)) for edge in size)
    return Size(width, height)


def largest_size_within(memory: Memory, options: TransferOptions, size: Size, styles: Sequence[Size]) -> int:
    """Return the longest edge of the largest result that fits into the memory, in pixels.

    Args:
        memory: what the transfer may hold.
        options: of the transfer.
        size: of the result that is asked for; nothing larger is looked for.
        styles: the sizes of the styles beside that, which change with it.

    Returns:
        The edge; 0 where not even the smallest result fits.
    """
    low, high = 0, max(size)
    while low < high:
        edge = (low + high + 1) // 2
        smaller = [scaled(style, edge / max(size)) for style in styles]
        if fitting_tile(options, fit(size, edge), smaller, memory)[1] <= memory.available:
            low = edge
        else:
            high = edge - 1
    return low if low >= minimum_edge(options.active_layers) else 0


def shorter_history(spec: TransferSpec, memory: Memory) -> tuple[int, int] | None:
    """Return a length of L-BFGS's history with which a transfer needs considerably less memory, and what it needs then.

    In bytes, in the tiles that fit into those available; None where the history is no considerable part of the memory.
    """
    styles = [style.picture.size for style in spec.styles]
    _, peak = fitting_tile(spec.options, spec.content.size, styles, memory)
    shorter = dataclasses.replace(spec.options, lbfgs_history=_SHORT_HISTORY)
    _, less = fitting_tile(shorter, spec.content.size, styles, memory)
    return (_SHORT_HISTORY, less) if less <= _CONSIDERABLY_LESS * peak else None


def fitting_tile(
    options: TransferOptions, size: Size, styles: Sequence[Size], memory: Memory
) -> tuple[int | None, int]:
    """Return the largest tile that fits, None for the whole picture, and the peak of the memory with it."""
    tile: int | None = None
    peak = peak_bytes(options, size, styles, on_gpu=memory.on_gpu)
    if peak <= memory.available:
        return tile, peak
    for tile in _TILES:
        peak = peak_bytes(options, size, styles, tile, on_gpu=memory.on_gpu)
        if peak <= memory.available:
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
