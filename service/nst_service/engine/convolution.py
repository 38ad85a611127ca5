"""3x3 convolutions with frozen weights: forward, and back to the input, which is all that pixels need.

On CPUs they take Winograd's way where it is the faster. The choice depends on the layer and the installation, never on
a measurement: the same request gives the same bytes after a restart.
"""

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input

from nst_service.engine.winograd import NativeWinograd, TorchWinograd


class Padding(StrEnum):
    """What a convolution sees beyond the edge."""

    ZERO = "zero"
    """Black: the network as it was trained. It sees a frame that no picture has."""
    REFLECT = "reflect"
    """The features mirrored at the edge: no frame."""


class FrozenConv:
    """A 3x3 convolution whose weights never change, with the ReLU that may follow it."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        """Take a kernel (outputs, inputs, 3, 3) and a bias (outputs,), both float32 on the device to be used."""
        self._kernel = kernel
        self._bias = bias
        # Made when it is needed: it copies the weights, and deep layers are seldom used.
        self._way: NativeWinograd | _Padded | None = None

    def __call__(self, x: Tensor, padding: Padding, *, relu: bool) -> Tensor:
        """Convolve features (1, C, H, W), then rectify them where asked for; differentiable by the features."""
        result: Tensor = _Convolution.apply(x, self.way, padding is Padding.REFLECT, relu)
        return result

    @property
    def way(self) -> "NativeWinograd | _Padded":
        """How it computes."""
        if self._way is None:
            if NativeWinograd.fits(self._kernel):
                self._way = NativeWinograd(self._kernel, self._bias)
            else:
                self._way = _Padded(self._kernel, self._bias)
            del self._kernel
        return self._way


class _Convolution(torch.autograd.Function):
    """Keeps for the way back what passed the ReLU; the gradient by the input does not need the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: "NativeWinograd | _Padded", mirrored: bool, relu: bool) -> Tensor:
        ctx.way, ctx.mirrored = way, mirrored
        y = way.forward(x, mirrored=mirrored, relu=relu)
        ctx.save_for_backward(y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (relu_output,) = ctx.saved_tensors
        return ctx.way.backward(gradients[0], mirrored=ctx.mirrored, relu_output=relu_output), None, None, None


class _Padded:
    """A convolution by operations of torch, on features that are padded before."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        self._way = TorchWinograd(kernel, bias) if TorchWinograd.fits(kernel) else _Direct(kernel, bias)

    def forward(self, x: Tensor, *, mirrored: bool, relu: bool) -> Tensor:
        y = self._way.forward(_mirrored(x) if mirrored else x, padding=0 if mirrored else 1)
        return y.relu_() if relu else y

    def backward(self, gradient: Tensor, *, mirrored: bool, relu_output: Tensor | None) -> Tensor:
        if relu_output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, relu_output, 0)
        height, width = gradient.shape[-2:]
        if mirrored:
            return _unmirrored(self._way.backward(gradient, (height + 2, width + 2), padding=0))
        return self._way.backward(gradient, (height, width), padding=1)


class _Direct:
    """A convolution as the library has it."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        self._kernel = kernel.contiguous(memory_format=torch.channels_last)
        self._bias = bias

    def forward(self, x: Tensor, *, padding: int) -> Tensor:
        return functional.conv2d(x, self._kernel, self._bias, padding=padding)

    def backward(self, gradient: Tensor, size: tuple[int, int], *, padding: int) -> Tensor:
        shape = (1, self._kernel.shape[1], *size)
        by_input: Tensor = conv2d_input(shape, self._kernel, gradient, padding=padding)  # type: ignore[no-untyped-call]
        return by_input


def _mirrored(x: Tensor) -> Tensor:
    """Mirror features at their edge, one row and column."""
    for edge, padding in ((x.shape[3], (1, 1, 0, 0)), (x.shape[2], (0, 0, 1, 1))):
        # There is nothing to mirror beside a single row or column.
        x = functional.pad(x, padding, mode="reflect" if edge > 1 else "replicate")
    return x


def _unmirrored(gradient: Tensor) -> Tensor:
    """Return the gradient by what `_mirrored` was given."""
    for dim in (2, 3):
        edge = gradient.shape[dim] - 2
        inner = gradient.narrow(dim, 1, edge)
        inner.select(dim, min(1, edge - 1)).add_(gradient.select(dim, 0))
        inner.select(dim, max(0, edge - 2)).add_(gradient.select(dim, edge + 1))
        gradient = inner
    return gradient.contiguous(memory_format=torch.channels_last)
