"""Features in bands of rows, where all of them at once would take the most memory.

What lies between the first two convolutions are the largest features there are: half of what an evaluation would hold.
They are cheap to compute, from three channels, so they are never in memory as a whole: the way back computes those of
each band again (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_service.engine.arena import empty_features
from nst_service.engine.network.layers import WHOLE, Window
from nst_service.engine.network.native import RELU, Epilogue, NativeConv, Rows
from nst_service.engine.sizes import Shape, halved

Look = Callable[[Tensor, Window], Sequence[Tensor]]
"""Gathers from features (1, C, h, W) of some rows of a layer what is wanted of them."""

_BANDS = 4
"""More take less memory for themselves, but then the second block of the network is what takes the most."""
_LEAST_ROWS = 64
"""Fewer would be too little work for many threads."""
_OVERLAP = 2
"""Rows that a band shares with the next one: inputs of a 3x3 convolution for the outputs of both."""


class Pair(NamedTuple):
    """Two convolutions, each with the ReLU after it, and the pooling after the second."""

    first: NativeConv
    second: NativeConv
    then: Epilogue
    mirrored: bool


def convolve_in_bands(x: Tensor, pair: Pair, look: Look | None) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Convolve twice and pool, looking at what lies between; differentiable by the input.

    Args:
        x: (1, C, H, W), in channels-last memory order.
        pair: the convolutions.
        look: called with the features between them, band by band, and on the way back once more; None for nothing.

    Returns:
        The pooled features (1, K, H / 2, W / 2), rounded up, and what was gathered from each band.
    """
    counts: list[int] = []
    pooled, *gathered = _Convolved.apply(x, pair, look, counts)
    return pooled, _by_band(gathered, counts)


def look_in_bands(x: Tensor, look: Look) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Look at features (1, C, H, W) band by band; differentiable by them.

    On the way back, what comes from a band is added to the gradient by the features while it is in the cache, and only
    that of one band is in memory beside it.

    Returns:
        The features, to be passed on, and what was gathered from each band.
    """
    if x.device.type != "cpu":
        return x, [look(x, WHOLE)]
    counts: list[int] = []
    passed, *gathered = _Looked.apply(x, look, counts)
    return passed, _by_band(gathered, counts)


def _by_band(gathered: Iterable[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    values = iter(gathered)
    return [tuple(islice(values, count)) for count in counts]


def rows_at_once(height: int) -> int:
    """Return how many of so many rows a band has."""
    return min(height, max(_LEAST_ROWS, -(-height // (_BANDS * NativeConv.ROWS)) * NativeConv.ROWS))


def _starts(height: int) -> range:
    return range(0, height, rows_at_once(height))


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
    for start, stop in pairwise([*_starts(height), height]):
        # On the way back, the gradients by the last row that an output sees wait for those of the next band.
        first, end = max(0, start - 1), stop if stop == height else stop - 1
        yield _Band(range(start, stop), range(first, end), range(first, min(height, end + _OVERLAP)))


class _Convolved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pair: Pair, look: Look | None, counts: list[int]) -> tuple[Tensor, ...]:
        shape = Shape.of(x)
        height = shape.height
        pooled = empty_features(pair.second.outputs, *halved(shape))
        kept = pair.second.empty_bits(shape)
        gathered: list[Tensor] = []
        for band in _bands(height):
            between = _between(x, pair, band)
            pair.second.forward_rows(
                band.outputs,
                between,
                Rows(pooled),
                Rows(kept),
                height=height,
                epilogue=pair.then,
                mirrored=pair.mirrored,
            )
            if look:
                seen = look(between.values[:, :, : len(band.between)], band.window)
                gathered += seen
                counts.append(len(seen))
        ctx.pair, ctx.look = pair, look
        ctx.save_for_backward(x, kept)
        return pooled, *gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x, kept), pair = ctx.saved_tensors, ctx.pair
        by_pooled, by_gathered = gradients[0].contiguous(memory_format=torch.channels_last), iter(gradients[1:])
        height, width = x.shape[-2:]
        by_x = torch.zeros_like(x)
        waiting: Tensor | None = None

        def go_back(band: _Band) -> Tensor:
            """Add what comes from a band; return the gradients by the rows that it shares with the next one."""
            by_between = Rows(empty_features(pair.first.outputs, len(band.inputs), width).zero_(), band.inputs.start)
            if waiting is not None:
                by_between.values[:, :, :_OVERLAP] = waiting
            pair.second.backward_rows(
                band.outputs,
                Rows(by_pooled),
                Rows(kept),
                by_between,
                height=height,
                epilogue=pair.then,
                mirrored=pair.mirrored,
            )
            between = _between(x, pair, band)
            own = slice(len(band.between))
            if ctx.look:
                with torch.enable_grad():
                    seen = between.values[:, :, own].requires_grad_()
                    gathered = ctx.look(seen, band.window)
                if gathered:
                    slopes = tuple(islice(by_gathered, len(gathered)))
                    by_between.values[:, :, own] += torch.autograd.grad(gathered, seen, slopes)[0]
            pair.first.backward_rows(
                band.between, by_between, between, Rows(by_x), height=height, epilogue=RELU, mirrored=pair.mirrored
            )
            return by_between.values[:, :, own.stop :].clone()

        for band in _bands(height):
            waiting = go_back(band)
        return by_x, None, None, None


class _Looked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, look: Look, counts: list[int]) -> tuple[Tensor, ...]:
        ctx.seen = []
        is_differentiated = ctx.needs_input_grad[0]
        for start, stop in pairwise([*_starts(x.shape[2]), x.shape[2]]):
            rows = slice(start, stop)
            band = x[:, :, rows].detach().requires_grad_(is_differentiated)
            with torch.set_grad_enabled(is_differentiated):
                gathered = look(band, (rows, slice(None)))
            ctx.seen.append((rows, band, gathered))
            counts.append(len(gathered))
        ctx.set_materialize_grads(False)
        return x.view_as(x), *(values.detach() for *_, gathered in ctx.seen for values in gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        by_gathered = iter(gradients[1:])
        # The features go as soon as all bands are done, and not with the graph that this is a part of.
        seen, ctx.seen = ctx.seen, None
        by_x = gradients[0]
        if by_x is None:
            by_x = torch.cat([torch.zeros_like(band) for _, band, _ in seen], 2)
        for rows, band, gathered in seen:
            if gathered:
                slopes = tuple(islice(by_gathered, len(gathered)))
                # In place: it was made for this layer alone.
                by_x[:, :, rows] += torch.autograd.grad(gathered, band, slopes)[0]
        return by_x, None, None


def _between(x: Tensor, pair: Pair, band: _Band) -> Rows:
    """Return the rows between the two convolutions that take part in a band."""
    height, width = x.shape[-2:]
    rows = Rows(empty_features(pair.first.outputs, len(band.inputs), width), band.inputs.start)
    pair.first.forward_rows(band.inputs, Rows(x), rows, None, height=height, epilogue=RELU, mirrored=pair.mirrored)
    return rows
