"""3x3 convolutions with frozen weights: forward, and backward to the input, which is all that pixels need.

Which algorithm convolves depends on the layer, the device and the installation, never on a measurement: the same
request gives the same bytes after a restart.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.arena import channels_last
from nst_service.engine.choices import Padding
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.bands import ConvolutionPair
from nst_service.engine.network.native import NOTHING, RELU, Epilogue, NativeConv
from nst_service.engine.network.precision import Precision, is_gpu
from nst_service.engine.network.stored_kernel import StoredKernel
from nst_service.engine.network.torch_winograd import TorchWinograd
from nst_service.engine.sizes import Shape


class FrozenConv:
    """A 3x3 convolution whose weights never change, with the ReLU that may follow it."""

    def __init__(self, kernel: StoredKernel, bias: Tensor, backend: Backend, precision: Precision = Precision.FLOAT32):
        """Make a convolution.

        Args:
            kernel: the weights.
            bias: (outputs,) float32, on the device to be used.
            backend: the implementation.
            precision: the numbers that a GPU multiplies.
        """
        self.algorithm: NativeConv | TorchConv
        if backend is Backend.NATIVE:
            self.algorithm = NativeConv(kernel, bias)
        else:
            self.algorithm = TorchConv(kernel.dense().to(bias.device), bias, precision)

    def __call__(self, x: Tensor, padding: Padding, *, relu: bool) -> Tensor:
        """Convolve features (1, C, H, W), then rectify them where asked for; differentiable with respect to x.

        On a GPU with the precision bfloat16, the result is bfloat16.
        """
        mirrored = _is_mirrored(padding)
        if isinstance(self.algorithm, NativeConv):
            result: Tensor = _NativeConvolution.apply(x, self.algorithm, RELU if relu else NOTHING, mirrored)
        else:
            result = _TorchConvolution.apply(x, self.algorithm, mirrored, relu)
        return result

    def fused(self, x: Tensor, padding: Padding, epilogue: Epilogue) -> Tensor:
        """Convolve features (1, C, H, W) by the native kernel, with an epilogue; differentiable with respect to x.

        What the epilogue pools is never in memory. Only convolutions of the native backend can do this.
        """
        result: Tensor = _NativeConvolution.apply(x, self._native, epilogue, _is_mirrored(padding))
        return result

    def before(self, second: "FrozenConv", padding: Padding, epilogue: Epilogue) -> ConvolutionPair:
        """Return this convolution together with the next one, both of the native backend, and an epilogue."""
        return ConvolutionPair(self._native, second._native, epilogue, _is_mirrored(padding))

    @property
    def _native(self) -> NativeConv:
        if not isinstance(self.algorithm, NativeConv):
            raise TypeError("only convolutions of the native backend are fused with an epilogue")
        return self.algorithm


class _NativeConvolution(torch.autograd.Function):
    """A convolution by the native kernel, with its epilogue. Most keep a bit of each output for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, native: NativeConv, epilogue: Epilogue, mirrored: bool) -> Tensor:
        ctx.native, ctx.epilogue, ctx.mirrored, ctx.shape = native, epilogue, mirrored, Shape.of(x)
        y, kept = native.forward(x, epilogue, mirrored=mirrored)
        ctx.save_for_backward(kept)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        grad_input = ctx.native.backward(gradients[0], kept, ctx.shape, ctx.epilogue, mirrored=ctx.mirrored)
        return grad_input, None, None, None


class _TorchConvolution(torch.autograd.Function):
    """A convolution by operations of torch, with its ReLU; it keeps the ReLU's outputs for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: "TorchConv", mirrored: bool, relu: bool) -> Tensor:
        ctx.conv, ctx.mirrored = conv, mirrored
        y = conv.forward(x, mirrored=mirrored, relu=relu)
        ctx.save_for_backward(y if relu else None)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (relu_output,) = ctx.saved_tensors
        return ctx.conv.backward(gradients[0], mirrored=ctx.mirrored, relu_output=relu_output), None, None, None


class TorchConv:
    """A convolution by operations of torch, with its padding and its ReLU."""

    def __init__(self, kernel: Tensor, bias: Tensor, precision: Precision):
        self._algorithm: TorchWinograd | _LibraryConv
        if TorchWinograd.fits(kernel):
            self._algorithm = TorchWinograd(kernel, bias)
        elif is_gpu(kernel.device):
            self._algorithm = _CudnnConv(kernel, bias, precision)
        else:
            self._algorithm = _LibraryConv(kernel, bias)

    def forward(self, x: Tensor, *, mirrored: bool, relu: bool) -> Tensor:
        """Return the outputs (1, K, H, W) for features (1, C, H, W)."""
        if mirrored:
            return self._algorithm.forward(_padded_by_reflection(x), padding=0, relu=relu)
        return self._algorithm.forward(x, padding=1, relu=relu)

    def backward(self, gradient: Tensor, *, mirrored: bool, relu_output: Tensor | None) -> Tensor:
        """Return the gradient with respect to the features from the one with respect to the outputs (1, K, H, W)."""
        if relu_output is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, relu_output, 0)
        height, width = Shape.of(gradient)
        if mirrored:
            padded = self._algorithm.backward(gradient, Shape(height + 2, width + 2), padding=0)
            return _padding_by_reflection_backward(padded)
        return self._algorithm.backward(gradient, Shape(height, width), padding=1)


class _LibraryConv:
    """A convolution by the operation of torch."""

    def __init__(self, kernel: Tensor, bias: Tensor):
        self._kernel = channels_last(kernel)
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
        grad_input: Tensor = torch.ops.aten.convolution_backward(
            channels_last(gradient),
            like,
            self._kernel,
            None,
            *((1, 1), (padding, padding), (1, 1), False, (0, 0), 1),
            (True, False, False),
        )[0]
        return grad_input


class _CudnnConv(_LibraryConv):
    """A convolution in the precision of a GPU, with the ReLU fused by cuDNN where it can."""

    def __init__(self, kernel: Tensor, bias: Tensor, precision: Precision):
        dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
        super().__init__(kernel.to(dtype), bias.to(dtype))
        # cuDNN has no fused kernel for three channels of bfloat16; other makers' GPUs have none at all.
        self._is_fused = torch.version.hip is None and (dtype is torch.float32 or kernel.shape[1] % 8 == 0)

    def forward(self, x: Tensor, *, padding: int, relu: bool) -> Tensor:
        x = x.to(self._kernel.dtype)
        if not (relu and self._is_fused):
            return super().forward(x, padding=padding, relu=relu)
        y: Tensor = torch.cudnn_convolution_relu(x, self._kernel, self._bias, (1, 1), (padding, padding), (1, 1), 1)
        return y


def _padded_by_reflection(x: Tensor) -> Tensor:
    """Return features with one row and column more at each edge, mirrored at it: (1, C, H + 2, W + 2)."""
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


def _is_mirrored(padding: Padding) -> bool:
    """Return whether a padding mirrors the features at the edge; otherwise it is zeros."""
    match padding:
        case Padding.ZERO:
            return False
        case Padding.REFLECT:
            return True


def _padding_by_reflection_backward(gradient: Tensor) -> Tensor:
    """Return the gradient with respect to what was padded: a part of the one given, which is changed."""
    for dim in (3, 2):
        edge = gradient.shape[dim] - 2
        inward = 1 if edge > 1 else 0
        gradient.select(dim, 1 + inward).add_(gradient.select(dim, 0))
        gradient.select(dim, edge - inward).add_(gradient.select(dim, edge + 1))
    return gradient[:, :, 1:-1, 1:-1]
