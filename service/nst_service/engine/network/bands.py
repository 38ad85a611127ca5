"""Features in bands of rows, where all of them at once would take the most memory.

What lies between the first two convolutions are the largest features there are: half of what an evaluation would hold.
They are cheap to compute, from three channels, so they are never in memory as a whole: the backward pass computes those
of each band again (Chen et al. 2016, "Training deep nets with sublinear memory cost").
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nst_service.engine.arena import channels_last, empty_features
from nst_service.engine.network.layers import WHOLE, Window
from nst_service.engine.network.native import RELU, Epilogue, NativeConv, Rows
from nst_service.engine.sizes import Shape, halved

BandVisitor = Callable[[Tensor, Window], Sequence[Tensor]]
"""Takes a layer's features (1, C, h, W) in a window of some rows; returns the tensors that are wanted of them."""

_BANDS = 4
"""More bands take less memory themselves, but then the second block of the network takes the most."""
_LEAST_ROWS = 64
"""Rows of the shortest band: fewer would be too little work for many threads."""
_OVERLAP = 2
"""Rows that a band shares with the next one: inputs of a 3x3 convolution for the outputs of both."""


class ConvolutionPair(NamedTuple):
    """Two convolutions, each with the ReLU after it, and the pooling after the second."""

    first: NativeConv
    second: NativeConv
    epilogue: Epilogue
    """The ReLU and the pooling after the second convolution."""
    mirrored: bool


def convolve_in_bands(
    x: Tensor, pair: ConvolutionPair, visit: BandVisitor | None
) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Convolve twice and pool, visiting the features between the convolutions; differentiable with respect to x.

    Args:
        x: features (1, C, H, W), in channels-last memory order.
        pair: the convolutions.
        visit: called with the features between them, band by band, and once more in the backward pass; None for
            nothing.

    Returns:
        The pooled features (1, K, H / 2, W / 2), rounded up, and what `visit` returned for each band.
    """
    counts: list[int] = []
    pooled, *visited = _ConvolvedInBands.apply(x, pair, visit, counts)
    return pooled, _by_band(visited, counts)


def visit_in_bands(x: Tensor, visit: BandVisitor) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Visit features (1, C, H, W) band by band, on a GPU all at once; differentiable with respect to them.

    The backward pass adds what comes from a band to the gradient while the band is in the cache, and only the gradient
    of one band is in memory beside that of all features.

    Returns:
        The features, to be passed on, and what `visit` returned for each band.
    """
    if x.device.type != "cpu":
        return visit_whole(x, visit)
    counts: list[int] = []
    passed, *visited = _VisitedInBands.apply(x, visit, counts)
    return passed, _by_band(visited, counts)


def visit_whole(x: Tensor, visit: BandVisitor) -> tuple[Tensor, list[Sequence[Tensor]]]:
    """Visit features (1, C, H, W) all at once; returns what `visit_in_bands` would return for a single band."""
    return x, [visit(x, WHOLE)]


def band_share(height: int) -> float:
    """Return the share of so many rows that one band has."""
    return _rows_of_band(height) / height


def _by_band(visited: Iterable[Tensor], counts: Sequence[int]) -> list[Sequence[Tensor]]:
    values = iter(visited)
    return [tuple(islice(values, count)) for count in counts]


def _rows_of_band(height: int) -> int:
    return min(height, max(_LEAST_ROWS, -(-height // (_BANDS * NativeConv.ROWS)) * NativeConv.ROWS))


def _starts(height: int) -> range:
    return range(0, height, _rows_of_band(height))


class _Band(NamedTuple):
    outputs: range
    """Rows of the second convolution that are computed from the band."""
    between: range
    """Rows of the features between the two convolutions that belong to the band."""
    inputs: range
    """Rows of the features between the two convolutions that take part in the band's outputs."""

    @property
    def window(self) -> Window:
        return Window(slice(self.between.start, self.between.stop), slice(None))


def _bands(height: int) -> Iterator[_Band]:
    for start, stop in pairwise([*_starts(height), height]):
        # The gradient with respect to the last row that an output sees is complete only after the next band.
        first, end = max(0, start - 1), stop if stop == height else stop - 1
        yield _Band(range(start, stop), range(first, end), range(first, min(height, end + _OVERLAP)))


class _ConvolvedInBands(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, pair: ConvolutionPair, visit: BandVisitor | None, counts: list[int]
    ) -> tuple[Tensor, ...]:
        shape = Shape.of(x)
        pooled = empty_features(pair.second.outputs, *halved(shape))
        kept = pair.second.empty_bits(shape)
        visited: list[Tensor] = []
        for band in _bands(shape.height):
            between = _between(x, pair, band)
            pair.second.forward_rows(
                band.outputs,
                between,
                Rows(pooled),
                Rows(kept),
                height=shape.height,
                epilogue=pair.epilogue,
                mirrored=pair.mirrored,
            )
            if visit:
                of_band = visit(between.values[:, :, : len(band.between)], band.window)
                visited += of_band
                counts.append(len(of_band))
        ctx.pair, ctx.visit = pair, visit
        ctx.save_for_backward(x, kept)
        return pooled, *visited

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (x, kept), pair = ctx.saved_tensors, ctx.pair
        grad_pooled, grad_visited = channels_last(gradients[0]), iter(gradients[1:])
        height, width = Shape.of(x)
        grad_x = torch.zeros_like(x)
        grad_shared: Tensor | None = None

        def backward_of(band: _Band) -> Tensor:
            """Add what comes from a band to grad_x; return the gradient of the rows that it shares with the next."""
            grad_between = Rows(empty_features(pair.first.outputs, len(band.inputs), width).zero_(), band.inputs.start)
            if grad_shared is not None:
                grad_between.values[:, :, :_OVERLAP] = grad_shared
            pair.second.backward_rows(
                band.outputs,
                Rows(grad_pooled),
                Rows(kept),
                grad_between,
                height=height,
                epilogue=pair.epilogue,
                mirrored=pair.mirrored,
            )
            between = _between(x, pair, band)
            own = slice(len(band.between))
            if ctx.visit:
                with torch.enable_grad():
                    features = between.values[:, :, own].requires_grad_()
                    visited = ctx.visit(features, band.window)
                if visited:
                    grad_of_band = tuple(islice(grad_visited, len(visited)))
                    grad_between.values[:, :, own] += torch.autograd.grad(visited, features, grad_of_band)[0]
            pair.first.backward_rows(
                band.between, grad_between, between, Rows(grad_x), height=height, epilogue=RELU, mirrored=pair.mirrored
            )
            return grad_between.values[:, :, own.stop :].clone()

        for band in _bands(height):
            grad_shared = backward_of(band)
        return grad_x, None, None, None


class _VisitedInBands(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, visit: BandVisitor, counts: list[int]) -> tuple[Tensor, ...]:
        ctx.visits = []
        is_differentiated = ctx.needs_input_grad[0]
        height = Shape.of(x).height
        for start, stop in pairwise([*_starts(height), height]):
            rows = slice(start, stop)
            band = x[:, :, rows].detach().requires_grad_(is_differentiated)
            with torch.set_grad_enabled(is_differentiated):
                visited = visit(band, Window(rows, slice(None)))
            ctx.visits.append((rows, band, visited))
            counts.append(len(visited))
        ctx.set_materialize_grads(False)
        return x.view_as(x), *(values.detach() for *_, visited in ctx.visits for values in visited)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None]:
        grad_visited = iter(gradients[1:])
        # The features go as soon as all bands are done, and not with the graph that this is a part of.
        visits, ctx.visits = ctx.visits, None
        grad_x = gradients[0]
        if grad_x is None:
            grad_x = torch.cat([torch.zeros_like(band) for _, band, _ in visits], 2)
        for rows, band, visited in visits:
            if visited:
                grad_of_band = tuple(islice(grad_visited, len(visited)))
                # In place: it was made for this layer alone.
                grad_x[:, :, rows] += torch.autograd.grad(visited, band, grad_of_band)[0]
        return grad_x, None, None


def _between(x: Tensor, pair: ConvolutionPair, band: _Band) -> Rows:
    """Return the rows between the two convolutions that take part in a band."""
    height, width = Shape.of(x)
    rows = Rows(empty_features(pair.first.outputs, len(band.inputs), width), band.inputs.start)
    pair.first.forward_rows(band.inputs, Rows(x), rows, None, height=height, epilogue=RELU, mirrored=pair.mirrored)
    return rows
