"""The 2x2 pooling between the blocks of the network, which halves height and width.

It rounds up: dropping the rows and columns that fill no 2x2 window would leave the picture's edge unstyled.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.native import MAX_POOL, Epilogue, NativeMaxPool, average_pool
from nst_service.engine.sizes import Shape

_AVERAGE_FACTOR = 1.4
_L2_FACTOR = 1.3
"""Both factors bring the activations near those of max pooling; measured on photographs and paintings."""


def pool(x: Tensor, pooling: Pooling, backend: Backend) -> Tensor:
    """Return (1, C, H / 2, W / 2), rounded up, of features (1, C, H, W); differentiable."""
    match pooling:
        case Pooling.MAX:
            if backend is Backend.NATIVE:
                pooled: Tensor = NativeMaxPool.apply(x)
                return pooled
            return functional.max_pool2d(x, 2, ceil_mode=True)
        case Pooling.AVERAGE:
            return _AVERAGE_FACTOR * _averaged(x)
        case Pooling.L2:
            # The root has no slope at zero.
            return _L2_FACTOR * (_averaged(x.square()) + 1e-12).sqrt()


def pooling_epilogue(pooling: Pooling) -> Epilogue | None:
    """Return the epilogue with which the native kernel rectifies and pools, or None if it has none for this pooling."""
    match pooling:
        case Pooling.MAX:
            return MAX_POOL
        case Pooling.AVERAGE:
            return average_pool(_AVERAGE_FACTOR)
        case Pooling.L2:
            return None


class _Average(torch.autograd.Function):
    """2x2 average pooling; torch's own backward pass takes five times as long on a GPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = Shape.of(x)
        return functional.avg_pool2d(x, 2, ceil_mode=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        shares = gradients[0].permute(0, 2, 3, 1) / 4
        _, rows, columns, channels = shares.shape
        spread = shares[:, :, None, :, None].expand(1, rows, 2, columns, 2, channels)
        spread = spread.clone(memory_format=torch.contiguous_format)
        grad_input = spread.view(1, 2 * rows, 2 * columns, channels).permute(0, 3, 1, 2)
        for dim, edge in zip((2, 3), ctx.shape, strict=True):
            grad_input = grad_input.narrow(dim, 0, edge)
            if edge % 2:
                # The last window holds half as many.
                grad_input.select(dim, edge - 1).mul_(2)
        return grad_input


def _averaged(x: Tensor) -> Tensor:
    averaged: Tensor = _Average.apply(x)
    return averaged
