"""3x3 convolutions with frozen weights: forward, and back to the input, which is all that pixels need.

On CPUs they take Winograd's way where it is the faster. The choice depends on the layer and the installation, never on
a measurement: the same request gives the same bytes after a restart.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.bands import Pair
from nst_service.engine.network.native import MAX_POOL, NOTHING, RELU, Epilogue, NativeConv, average_pool
from nst_service.engine.network.pooling import AVERAGE_FACTOR, pool
from nst_service.engine.network.precision import Precision, is_gpu
from nst_service.engine.network.stored_kernel import StoredKernel
from nst_service.engine.network.torch_winograd import TorchWinograd
from nst_service.engine.sizes import Shape


class FrozenConv:
    """A 3x3 convolution whose weights never change, with the ReLU that may follow it."""

    def __init__(self, kernel: StoredKernel, bias: Tensor, precision: Precision = Precision.FLOAT32):
        """Take a kernel and a bias (outputs,), float32 on the device to be used."""
        self.way: NativeConv | _Padded
        """How it computes."""
        if NativeConv.fits(kernel, bias.device):
            self.way = NativeConv(kernel, bias)
        else:
            self.way = _Padded(kernel.dense().to(bias.device), bias, precision)

    def __call__(self, x: Tensor, padding: Padding, *, relu: bool) -> Tensor:
        """Convolve features (1, C, H, W), then rectify them where asked for; differentiable by the features.

        On a GPU with the precision bfloat16, the result is bfloat16.
        """
        is_mirrored = padding is Padding.REFLECT
        if isinstance(self.way, NativeConv):
            result: Tensor = _Native.apply(x, self.way, RELU if relu else NOTHING, is_mirrored)
        else:
            result = _Convolution.apply(x, self.way, is_mirrored, relu)
        return result

    def pooled(self, x: Tensor, padding: Padding, pooling: Pooling) -> Tensor:
        """Convolve features (1, C, H, W), rectify and pool them; differentiable by the features.

        Where that is one step, what lies between is never in memory.
        """
        then = _native(pooling)
        if isinstance(self.way, NativeConv) and then is not None:
            result: Tensor = _Native.apply(x, self.way, then, padding is Padding.REFLECT)
            return result
        return pool(self(x, padding, relu=True), pooling)

    def before(self, second: "FrozenConv", padding: Padding, pooling: Pooling) -> Pair | None:
        """Return what it is together with the convolution and the pooling after it, where that can be done in bands."""
        then = _native(pooling)
        if isinstance(self.way, NativeConv) and isinstance(second.way, NativeConv) and then is not None:
            return Pair(self.way, second.way, then, padding is Padding.REFLECT)
        return None


class _Native(torch.autograd.Function):
    """By the native kernel, with what follows. All that the way back needs to know is a bit for each output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: NativeConv, then: Epilogue, mirrored: bool) -> Tensor:
        ctx.way, ctx.then, ctx.mirrored, ctx.shape = way, then, mirrored, Shape.of(x)
        y, kept = way.forward(x, then, mirrored=mirrored)
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        by_input = ctx.way.backward(gradients[0], kept, ctx.shape, ctx.then, mirrored=ctx.mirrored)
        return by_input, None, None, None


class _Convolution(torch.autograd.Function):
    """By operations of torch. Keeps for the way back what passed the ReLU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: "_Padded", mirrored: bool, relu: bool) -> Tensor:
        ctx.way, ctx.mirrored = way, mirrored
        y = way.forward(x, mirrored=mirrored, relu=relu)
        ctx.save_for_backward(y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (relu_output,) = ctx.saved_tensors
        return ctx.way.backward(gradients[0], mirrored=ctx.mirrored, relu_output=relu_output), None, None, None


def _native(pooling: Pooling) -> Epilogue | None:
    """Return how the native kernel pools, or None where it does not."""
    match pooling:
        case Pooling.MAX:
            return MAX_POOL
        case Pooling.AVERAGE:
            return average_pool(AVERAGE_FACTOR)
        case Pooling.L2:
            return None


class _Padded:
    """A convolution by operations of torch, on features that are padded before."""

    def __init__(self, kernel: Tensor, bias: Tensor, precision: Precision):
        self._way: TorchWinograd | _Direct
        if TorchWinograd.fits(kernel):
            self._way = TorchWinograd(kernel, bias)
        elif is_gpu(kernel.device):
            self._way = _OnGpu(kernel, bias, precision)
        else:
            self._way = _Direct(kernel, bias)

    def forward(self, x: Tensor, *, mirrored: bool, relu: bool) -> Tensor:
        if mirrored:
            return self._way.forward(_mirrored(x), padding=0, relu=relu)
        return self._way.forward(x, padding=1, relu=relu)

    def backward(self, gradient: Tensor, *, mirrored: bool, relu_output: Tensor | None) -> Tensor:
        if relu_output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, relu_output, 0)
        height, width = gradient.shape[-2:]
        if mirrored:
            return _unmirrored(self._way.backward(gradient, Shape(height + 2, width + 2), padding=0))
        return self._way.backward(gradient, Shape(height, width), padding=1)


class _Direct:
    """A convolution as the library has it."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        self._kernel = kernel.contiguous(memory_format=torch.channels_last)
        self._bias = bias

    def forward(self, x: Tensor, *, padding: int, relu: bool) -> Tensor:
        y = functional.conv2d(x, self._kernel, self._bias, padding=padding)
        return y.relu_() if relu else y

    def backward(self, gradient: Tensor, shape: Shape, *, padding: int) -> Tensor:
        # The input counts by its shape and memory order only. One of any other order would be copied.
        like = torch.empty(
            (1, self._kernel.shape[1], *shape),
            dtype=gradient.dtype,
            device=gradient.device,
            memory_format=torch.channels_last,
        )
        by_input: Tensor = torch.ops.aten.convolution_backward(
            gradient.contiguous(memory_format=torch.channels_last),
            like,
            self._kernel,
            None,
            *((1, 1), (padding, padding), (1, 1), False, (0, 0), 1),
            (True, False, False),
        )[0]
        return by_input


class _OnGpu(_Direct):
    """The same in the precision of a GPU, with a ReLU that costs nothing."""

    def __init__(self, kernel: Tensor, bias: Tensor, precision: Precision):
        dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
        super().__init__(kernel.to(dtype), bias.to(dtype))
        # cuDNN has no fused way for three channels of bfloat16; other makers' GPUs have none at all.
        self._is_fused = torch.version.hip is None and (dtype is torch.float32 or kernel.shape[1] % 8 == 0)

    def forward(self, x: Tensor, *, padding: int, relu: bool) -> Tensor:
        x = x.to(self._kernel.dtype)
        if not (relu and self._is_fused):
            return super().forward(x, padding=padding, relu=relu)
        y: Tensor = torch.cudnn_convolution_relu(x, self._kernel, self._bias, (1, 1), (padding, padding), (1, 1), 1)
        return y


def _mirrored(x: Tensor) -> Tensor:
    """Mirror features at their edge, one row and column."""
    _, channels, height, width = x.shape
    padded = torch.empty(
        (1, channels, height + 2, width + 2), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    padded[:, :, 1:-1, 1:-1] = x
    for dim, edge in ((2, height), (3, width)):
        # There is nothing to mirror beside a single row or column.
        inward = 1 if edge > 1 else 0
        padded.select(dim, 0).copy_(padded.select(dim, 1 + inward))
        padded.select(dim, edge + 1).copy_(padded.select(dim, edge - inward))
    return padded


def _unmirrored(gradient: Tensor) -> Tensor:
    """Return the gradient by what `_mirrored` was given: a part of this one, which is changed."""
    for dim in (3, 2):
        edge = gradient.shape[dim] - 2
        inward = 1 if edge > 1 else 0
        gradient.select(dim, 1 + inward).add_(gradient.select(dim, 0))
        gradient.select(dim, edge - inward).add_(gradient.select(dim, edge + 1))
    return gradient[:, :, 1:-1, 1:-1]
