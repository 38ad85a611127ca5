"""The first two convolutions in bands of rows.

What lies between them are the largest features there are: half of what an evaluation would hold. They are cheap to
compute, from three channels, so they are never in memory as a whole: the way back computes those of each band again
(Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_service.engine.layers import Window
from nst_service.engine.winograd import RELU, NativeConv, Rows, Then, empty_features, halved

Look = Callable[[Tensor, Window], Sequence[Tensor]]
"""Gathers from features (1, C, h, W) of some rows of a layer what is wanted of them."""

_BANDS = 4
"""More take less memory for themselves, but then the second block of the network is what takes the most."""
_LEAST_ROWS = 64
_OVERLAP = 2
"""Rows that a band shares with the next one: inputs of a 3x3 convolution for the outputs of both."""


class Pair(NamedTuple):
    """Two convolutions, each with the ReLU after it, and the pooling after the second."""

    first: NativeConv
    second: NativeConv
    then: Then
    mirrored: bool


def in_bands(x: Tensor, pair: Pair, look: Look | None) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Convolve twice and pool, looking at what lies between; differentiable by the input.

    Args:
        x: (1, C, H, W), in channels-last memory order.
        pair: the convolutions.
        look: called with the features between them, band by band, and on the way back once more; None for nothing.

    Returns:
        The pooled features (1, K, H / 2, W / 2), rounded up, and what was gathered from each band.
    """
    pooled, *gathered = _InBands.apply(x, pair, look)
    count = len(gathered) // len(list(_bands(x.shape[2])))
    return pooled, [gathered[at : at + count] for at in range(0, len(gathered), count)] if count else []


class _Band(NamedTuple):
    outputs: range
    """Rows of the second convolution that are computed from the band."""
    between: range
    """Rows of the features between the two that belong to the band."""
    inputs: range
    """Rows of them that take part in its outputs."""

    @property
    def window(self) -> Window:
        return slice(self.between.start, self.between.stop), slice(None)


def _bands(height: int) -> Iterator[_Band]:
    rows = max(_LEAST_ROWS, -(-height // (_BANDS * NativeConv.ROWS)) * NativeConv.ROWS)
    for start, stop in pairwise([*range(0, height, rows), height]):
        # On the way back, the gradients by the last row that an output sees wait for those of the next band.
        first, end = max(0, start - 1), stop if stop == height else stop - 1
        yield _Band(range(start, stop), range(first, end), range(first, min(height, end + _OVERLAP)))


class _InBands(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pair: Pair, look: Look | None) -> tuple[Tensor, ...]:
        size, height = x.shape[-2:], x.shape[2]
        pooled = empty_features(pair.second.outputs, *halved(size))
        kept = empty_features(pair.second.outputs, *halved(halved(size)), torch.int16)
        gathered: list[Tensor] = []
        for band in _bands(height):
            between = _between(x, pair, band)
            pair.second.forward_rows(
                band.outputs,
                between,
                Rows(pooled),
                Rows(kept),
                height=height,
                then=pair.then,
                mirrored=pair.mirrored,
            )
            if look:
                gathered += look(between.values[:, :, : len(band.between)], band.window)
        ctx.pair, ctx.look = pair, look
        ctx.save_for_backward(x, kept)
        return pooled, *gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x, kept), pair = ctx.saved_tensors, ctx.pair
        by_pooled, by_gathered = gradients[0].contiguous(memory_format=torch.channels_last), iter(gradients[1:])
        height, width = x.shape[-2:]
        by_x = torch.zeros_like(x)
        waiting: Tensor | None = None
        for band in _bands(height):
            by_between = Rows(empty_features(pair.first.outputs, len(band.inputs), width).zero_(), band.inputs.start)
            if waiting is not None:
                by_between.values[:, :, :_OVERLAP] = waiting
            pair.second.backward_rows(
                band.outputs,
                Rows(by_pooled),
                Rows(kept),
                by_between,
                height=height,
                then=pair.then,
                mirrored=pair.mirrored,
            )
            between = _between(x, pair, band)
            own = slice(len(band.between))
            if ctx.look:
                with torch.enable_grad():
                    seen = between.values[:, :, own].requires_grad_()
                    gathered = ctx.look(seen, band.window)
                slopes = [next(by_gathered) for _ in gathered]
                by_between.values[:, :, own] += torch.autograd.grad(gathered, seen, slopes)[0]
            pair.first.backward_rows(
                band.between, by_between, between, Rows(by_x), height=height, then=RELU, mirrored=pair.mirrored
            )
            waiting = by_between.values[:, :, own.stop :].clone()
        return by_x, None, None


def _between(x: Tensor, pair: Pair, band: _Band) -> Rows:
    """Return the rows between the two convolutions that take part in a band."""
    height, width = x.shape[-2:]
    rows = Rows(empty_features(pair.first.outputs, len(band.inputs), width), band.inputs.start)
    pair.first.forward_rows(band.inputs, Rows(x), rows, None, height=height, then=RELU, mirrored=pair.mirrored)
    return rows
