"""How many bytes a transfer holds on its device at once: the network, the optimiser, snapshots and workspaces."""

import math
from collections.abc import Collection, Sequence
from types import MappingProxyType

import torch

from nst_service.engine.choices import OptimizerKind, StyleStatisticKind
from nst_service.engine.network.backend import CPU_BACKEND, Backend
from nst_service.engine.network.bands import band_share
from nst_service.engine.network.layers import channels_of, features_shape
from nst_service.engine.network.plan import activation_bytes, plan, plan_in_bands
from nst_service.engine.network.tiles import count_tiles, halo_of, spans
from nst_service.engine.objective.statistics import SLICED_DIRECTIONS
from nst_service.engine.options import TransferOptions
from nst_service.engine.sizes import Size

_FLOAT_BYTES, _INDEX_BYTES = 4, 8
_PICTURES = 12
"""Pictures that an optimiser and the losses on pixels hold at once, beside the history of L-BFGS: pixels, gradients,
the best so far, the content, differences of neighbours, spectra ..."""
_SNAPSHOT_PICTURES = MappingProxyType({OptimizerKind.LBFGS: 5, OptimizerKind.ADAM: 7})
"""Pictures that a snapshot holds beside the history of L-BFGS and the average: where the optimiser stands, the best so
far and their gradients, where it goes, moments of Adam."""
_SNAPSHOT_TEXT = 2**15
"""Bytes of a snapshot that belong to no picture."""
_LARGEST_SNAPSHOT = 2**28
"""Bytes. Larger snapshots leave out what the optimiser has learnt: it would take seconds and gigabytes."""
_CONTENT_CHANNELS, _STYLE_CHANNELS = 4, 3
"""Bytes of a pixel of the content, which may be transparent, and of a style."""
_SHARED_CHANNELS = 12
"""Bytes of a pixel of all pictures and masks together that have the size of the result, but those of the styles: the
content, the picture to start from, the reference, and the masks of the content and of the reference."""
_FINISHING_PICTURES = 10
"""Pictures that the conversion of colours and the encoder hold at once."""
_STYLE_PICTURES = 3
"""Copies of the pixels of a style while its statistics are computed, even in tiles: as numbers, with the colours of the
content, and a copy for its checksum."""
_TEMPORARIES = 5
"""Features of a layer that operations of torch hold in the backward pass, beside what is kept for it: the gradients
with respect to its output and to its input, and copies that are rectified or padded."""
_WORKSPACE = MappingProxyType({Backend.TORCH: 96 * 2**20, Backend.NATIVE: 24 * 2**20})
"""Bytes of Winograd's transforms and of the scratch memory of libraries."""
_NATIVE_WORKSPACE_OF_A_THREAD = 4 * 2**20
"""Bytes that each thread of the native kernel takes beside that."""
_HEAP = 1.3
"""Memory of the process over what is alive in it: not every free piece of a heap fits what is wanted next, and
`devices.set_up_process` has the heap keep them."""


def peak_bytes(
    options: TransferOptions,
    size: Size,
    styles: Sequence[Size],
    tile_size: int | None = None,
    backend: Backend = CPU_BACKEND,
) -> int:
    """Estimate the most memory that a transfer holds on its device at once; rather too much than too little.

    Args:
        options: the options of the transfer.
        size: the size of the result.
        styles: the sizes of the styles.
        tile_size: the edge of the tiles in pixels, or None where pictures are taken as a whole.
        backend: the implementation of the convolutions.

    Returns:
        Bytes, without the weights of the network and the pictures of the request.
    """
    layers = options.active_layers
    picture = _picture_bytes(size)
    pictures = (_PICTURES + 2 * options.curvature_pairs) * picture
    targets = sum(activation_bytes(size, layer) for layer in options.active_content_layers)
    statistics = _statistics_bytes(options, size, len(styles), tile_size)
    held = pictures + targets + statistics + _workspace_bytes(backend)
    work = [_FINISHING_PICTURES * picture]
    if layers:
        work.append(_evaluation_bytes(options, size, tile_size, backend))
    if options.active_style_layers:
        work += [
            _style_bytes(options, _largest_part(style, tile_size, layers), backend)
            + _STYLE_PICTURES * _picture_bytes(style)
            for style in styles
        ]
    return round(_HEAP * (held + max(work))) + snapshot_bytes(options, size)


def picture_bytes(size: Size, styles: Sequence[Size]) -> int:
    """Return the most bytes that the decoded pictures of a request take, beside what is computed from them.

    Args:
        size: the size of the result, which all pictures and masks but those of the styles have.
        styles: the sizes of the styles.
    """
    sizes = [math.prod(style) for style in styles]
    held = (_SHARED_CHANNELS + len(sizes)) * math.prod(size) + _STYLE_CHANNELS * sum(sizes)
    # A picture that comes from its decoder is there twice.
    return held + _CONTENT_CHANNELS * max((math.prod(size), *sizes))


def least_bytes(backend: Backend = CPU_BACKEND) -> int:
    """Return the bytes that a transfer of any size holds on its device: none makes do with less."""
    return round(_HEAP * _workspace_bytes(backend))


def snapshot_bytes(options: TransferOptions, size: Size) -> int:
    """Estimate the most bytes that a snapshot of a transfer has, stored or on the device."""
    return _snapshot_bytes(options, size, history=keeps_history(options, size))


def keeps_history(options: TransferOptions, size: Size) -> bool:
    """Return whether snapshots of a transfer contain what the optimiser has learnt."""
    return _snapshot_bytes(options, size, history=True) <= _LARGEST_SNAPSHOT


def _snapshot_bytes(options: TransferOptions, size: Size, *, history: bool) -> int:
    pictures = _SNAPSHOT_PICTURES[options.optimizer] + bool(options.averaging) + 2 * history * options.curvature_pairs
    return _SNAPSHOT_TEXT + pictures * _picture_bytes(size)


def _workspace_bytes(backend: Backend) -> int:
    threads = torch.get_num_threads() if backend is Backend.NATIVE else 0
    return _WORKSPACE[backend] + _NATIVE_WORKSPACE_OF_A_THREAD * threads


def _picture_bytes(size: Size) -> int:
    return 3 * math.prod(size) * _FLOAT_BYTES


def _evaluation_bytes(options: TransferOptions, size: Size, tile_size: int | None, backend: Backend) -> int:
    """Return the bytes that the network holds for an evaluation of the objective and its gradient."""
    layers = options.active_layers
    part = _largest_part(size, tile_size, layers)
    network = _native_bytes(options, part) if backend is Backend.NATIVE else _torch_bytes(options, part)
    if tile_size is None:
        return network
    # A core is copied out of the features of its tile, and its gradient into the one of the tile.
    core = Size(min(size.width, tile_size), min(size.height, tile_size))
    share = band_share(core.height) if backend is Backend.NATIVE else 1
    return network + 3 * round(share * max(activation_bytes(core, layer) for layer in layers))


def _torch_bytes(options: TransferOptions, part: Size) -> int:
    """Return the bytes that operations of torch keep for the backward pass, and the temporaries of one layer."""
    steps = plan(options.active_layers, options.variant, Backend.TORCH)
    return sum(step.kept_bytes(part) for step in steps) + _TEMPORARIES * max(step.output_bytes(part) for step in steps)


def _native_bytes(options: TransferOptions, part: Size) -> int:
    """Return the bytes that the native kernel holds at the step where they are the most."""
    kept = most = 0
    for step in plan_in_bands(options.active_layers, options.variant, Backend.NATIVE):
        kept += step.kept_bytes(part)
        most = max(most, kept + step.working_bytes(part))
    return most


def _style_bytes(options: TransferOptions, part: Size, backend: Backend) -> int:
    """Return the bytes that the network holds for the features of a style, which need no backward pass."""
    steps = plan(options.active_style_layers, options.variant, backend)
    if backend is Backend.NATIVE:
        return max(step.forward_bytes(part) for step in steps)
    return _TEMPORARIES * max(step.output_bytes(part) for step in steps)


def _statistics_bytes(options: TransferOptions, size: Size, styles: int, tile_size: int | None) -> int:
    """Return the bytes of the statistics of the styles, of the picture and of its tiles."""
    layers = options.active_style_layers
    if options.style_loss is StyleStatisticKind.SLICED_WASSERSTEIN:
        # Of each feature: its projections, part by part and together, sorted, their places, targets and slopes.
        values = SLICED_DIRECTIONS * sum(math.prod(features_shape(size, layer)) for layer in layers)
        return (5 * _FLOAT_BYTES + _INDEX_BYTES) * values
    channels = [channels_of(layer) for layer in layers]
    matrices = _FLOAT_BYTES * sum(count * (count + 1) for count in channels)
    # Tiles have a statistic and a slope each.
    return matrices * (styles + 2 * (1 if tile_size is None else count_tiles(size, tile_size)))


def _largest_part(size: Size, tile_size: int | None, layers: Collection[str]) -> Size:
    """Return the size of the largest tile with its halo, or of the whole picture."""
    if tile_size is None:
        return size
    halo = halo_of(layers)
    width, height = (max(len(span) for span, _ in spans(edge, tile_size, halo)) for edge in size)
    return Size(width, height)
