"""Convolutions by the native kernel, with the ReLU and the pooling that follow.

The kernel is Winograd's F(4x4, 3x3) (Lavin & Gray 2016, see `torch_winograd`), and a direct product for the first
layer, whose three inputs are too few for Winograd's.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.arena import channels_last, empty, empty_features
from nst_service.engine.network.stored_kernel import StoredKernel
from nst_service.engine.sizes import Shape, halved

try:
    # Shares the threads of torch, whose OpenMP was loaded above.
    from nst_service.engine import _winograd
except ImportError:
    _winograd = None  # type: ignore[assignment]


class Epilogue(NamedTuple):
    """What the native kernel does to the outputs of a convolution before they reach the memory."""

    code: int
    """As the kernel has it."""
    scale: float = 1.0
    """Of averages."""
    pools: bool = False
    """Whether the result has half the height and width, rounded up."""


NOTHING, RELU = Epilogue(0), Epilogue(1)


MAX_POOL = Epilogue(2, pools=True)
"""After a ReLU."""


def average_pool(scale: float) -> Epilogue:
    """Pool by scaled averages, after a ReLU."""
    return Epilogue(3, scale, pools=True)


class Rows(NamedTuple):
    """Those rows of features (1, C, H, W) that are in memory."""

    values: Tensor
    """(1, C, h, W), in channels-last memory order."""
    first: int = 0
    """Which one of all H the first is."""

    @property
    def width(self) -> int:
        """W."""
        return self.values.shape[-1]

    @property
    def address(self) -> int:
        """Where the first row of all would stand."""
        return self.values.data_ptr() - self.first * self.values.stride(2) * self.values.itemsize


class NativeConv:
    """A convolution by the native kernel, with its bias, its padding and what follows it fused.

    The kernel transforms weights as it goes, in both directions from the same ones and as they are stored: kept
    transformed, they would take four times the memory, or 16 times, and reading them takes about as long. The three
    inputs of the first layer are too few for Winograd's way.
    """

    ROWS = 4
    """Rows that are worked on together."""

    @staticmethod
    def fits(kernel: StoredKernel, device: torch.device) -> bool:
        """Whether the native kernel was built and has a way to convolve with this one."""
        if _winograd is None or device.type != "cpu":
            return False
        outputs, inputs = kernel.shape[:2]
        return outputs % _winograd.PANEL == 0 and (inputs % _winograd.PANEL == 0 or inputs <= _winograd.FEW_INPUTS)

    def __init__(self, kernel: StoredKernel, bias: Tensor):
        self._bias = bias
        self.outputs, self.inputs = kernel.shape[:2]
        self._is_direct = self.inputs <= _winograd.FEW_INPUTS
        if self._is_direct:
            kernel = StoredKernel(kernel.dense())
        self._table = kernel.table
        self._table_address = 0 if kernel.table is None else kernel.table.data_ptr()
        self._forward = _panels(kernel.values)
        self._backward = _taps(kernel.values) if self._is_direct else self._forward

    def forward(self, x: Tensor, epilogue: Epilogue, *, mirrored: bool) -> tuple[Tensor, Tensor | None]:
        """Convolve features (1, C, H, W) with one row and column around them.

        Returns:
            What comes of it, (1, K, H, W) or half as high and wide where it is pooled, and what the way back needs to
            know of it: which outputs passed, a bit for each.
        """
        x = channels_last(x)
        shape = Shape.of(x)
        y = empty_features(self.outputs, *(halved(shape) if epilogue.pools else shape))
        kept = None
        if epilogue is not NOTHING:
            kept = y if self._is_direct else self.empty_bits(shape)
        noted = None if kept is None else Rows(kept)
        self.forward_rows(
            range(shape.height), Rows(x), Rows(y), noted, height=shape.height, epilogue=epilogue, mirrored=mirrored
        )
        return y, kept

    def empty_bits(self, shape: Shape) -> Tensor:
        """Return the place of a bit for each output (1, K, *shape): 16 for every tile of 4x4."""
        return empty_features(self.outputs, *halved(halved(shape)), torch.int16)

    def backward(
        self, gradient: Tensor, kept: Tensor | None, shape: Shape, epilogue: Epilogue, *, mirrored: bool
    ) -> Tensor:
        """Return the gradient with respect to the input of `forward`, (1, C, *shape).

        Args:
            gradient: the gradient with respect to its result.
            kept: what it returned beside the result.
            shape: height and width of its input.
            epilogue: the same as it was given.
            mirrored: the same as it was given.
        """
        grad_input = empty_features(self.inputs, *shape).zero_()
        gradient = channels_last(gradient)
        noted = None if kept is None else Rows(kept)
        self.backward_rows(
            range(shape.height),
            Rows(gradient),
            noted,
            Rows(grad_input),
            height=shape.height,
            epilogue=epilogue,
            mirrored=mirrored,
        )
        return grad_input

    def forward_rows(
        self, rows: range, x: Rows, y: Rows, kept: Rows | None, *, height: int, epilogue: Epilogue, mirrored: bool
    ) -> None:
        """Compute some rows of the outputs.

        Args:
            rows: which ones. Their bounds are multiples of `ROWS` where they are not that of the picture, but for few
                inputs.
            x: the inputs, with a row before and a row after those that take part.
            y: where the results go.
            kept: where what `forward` keeps goes.
            height: of all outputs.
            epilogue: what becomes of them.
            mirrored: whether the inputs are mirrored at the edge of the picture, or zero beyond it.
        """
        _winograd.forward(
            x.address,
            self._forward.data_ptr(),
            self._table_address,
            self._bias.data_ptr(),
            y.address,
            0 if kept is None else kept.address,
            height,
            x.width,
            rows.start,
            rows.stop,
            self.inputs,
            self.outputs,
            mirrored,
            epilogue.code,
            epilogue.scale,
            torch.get_num_threads(),
        )

    def backward_rows(
        self,
        rows: range,
        gradient: Rows,
        kept: Rows | None,
        grad_input: Rows,
        *,
        height: int,
        epilogue: Epilogue,
        mirrored: bool,
    ) -> None:
        """Add to `grad_input` what comes from some rows of the outputs (see `forward_rows`)."""
        _winograd.backward(
            gradient.address,
            0 if kept is None else kept.address,
            self._backward.data_ptr(),
            self._table_address,
            grad_input.address,
            height,
            grad_input.width,
            rows.start,
            rows.stop,
            self.inputs,
            self.outputs,
            mirrored,
            epilogue.code,
            epilogue.scale,
            torch.get_num_threads(),
        )


class NativeMaxPool(torch.autograd.Function):
    """2x2 max pooling that rounds up, by the native kernel: the same values and gradients as torch's.

    It keeps nothing but its input, which the convolution before it keeps anyway, where torch's keeps an index of eight
    bytes for each result.
    """

    @staticmethod
    def fits(x: Tensor) -> bool:
        """Whether the native kernel was built and can pool these features."""
        return _winograd is not None and x.device.type == "cpu"

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return (1, C, H / 2, W / 2), rounded up, of features (1, C, H, W)."""
        x = channels_last(x)
        ctx.save_for_backward(x)
        _, channels, height, width = x.shape
        y = empty_features(channels, *halved(Shape(height, width)))
        _winograd.pool(x.data_ptr(), y.data_ptr(), height, width, channels, torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient with respect to the input."""
        (x,) = ctx.saved_tensors
        gradient = channels_last(gradients[0])
        grad_input = torch.empty_like(x)
        _, channels, height, width = x.shape
        _winograd.unpool(
            x.data_ptr(), gradient.data_ptr(), grad_input.data_ptr(), height, width, channels, torch.get_num_threads()
        )
        return grad_input


def _taps(kernel: Tensor) -> Tensor:
    """Return a kernel (K, C, 3, 3) in the order in which the native one goes back to few inputs: (K, 9 * C, ...)."""
    outputs, inputs = kernel.shape[:2]
    taps = kernel.permute(0, 2, 3, 1).reshape(outputs, 9 * inputs)
    return functional.pad(taps, (0, _winograd.PANEL - 9 * inputs)).contiguous()


def _panels(kernel: Tensor) -> Tensor:
    """Return a kernel (K, C, 3, 3) in the order in which the native one reads it: (K / PANEL, 9, C, PANEL)."""
    outputs, inputs = kernel.shape[:2]
    panels = kernel.reshape(outputs // _winograd.PANEL, _winograd.PANEL, inputs, 9).permute(0, 3, 2, 1)
    return empty(kernel.numel(), kernel.dtype, stays=True).view(panels.shape).copy_(panels)
