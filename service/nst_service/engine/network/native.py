"""Convolutions by the native kernel, with the ReLU and the pooling that follow.

The kernel computes Winograd's F(4x4, 3x3) (Lavin & Gray 2016, see `torch_winograd`). The first layer has too few inputs
for it, three, and is convolved directly.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]  # documented, but not exported

from nst_service.engine.arena import channels_last, empty, empty_features
from nst_service.engine.native import extension
from nst_service.engine.network.stored_kernel import StoredKernel
from nst_service.engine.sizes import Shape, halved


class Epilogue(NamedTuple):
    """What the native kernel does to the outputs of a convolution before it writes them to memory."""

    code: int
    """The number of the epilogue in `native/layer.h`."""
    scale: float = 1.0
    """What averages are multiplied by."""
    pools: bool = False
    """Whether the result has half the height and width, rounded up."""


NOTHING, RELU = Epilogue(0), Epilogue(1)


MAX_POOL = Epilogue(2, pools=True)
"""A ReLU and 2x2 max pooling."""


def average_pool(scale: float) -> Epilogue:
    """Return a ReLU and 2x2 average pooling, whose averages are multiplied by `scale`."""
    return Epilogue(3, scale, pools=True)


class Rows(NamedTuple):
    """Consecutive rows of features (1, C, H, W), which are in memory while the others may not be."""

    values: Tensor
    """The rows (1, C, h, W), in channels-last memory order."""
    first: int = 0
    """The index of the first of them among all H."""

    def exported(self) -> tuple[Any, int]:
        """Return the rows as the extension takes them: a DLPack capsule and the index of the first row."""
        return to_dlpack(self.values), self.first


class NativeConv:
    """A convolution by the native kernel, with its bias, its padding and its epilogue fused.

    The kernel transforms the stored weights anew in each call, and takes the same ones in both directions. Transformed
    weights would take four times the memory, or 16 times that of 8-bit ones, and reading them takes about as long.
    """

    ROWS = 4
    """The number of output rows that are computed together."""

    def __init__(self, kernel: StoredKernel, bias: Tensor):
        self.outputs, self.inputs = kernel.shape[:2]
        self._is_direct = self.inputs <= extension.FEW_INPUTS
        if self._is_direct:
            kernel = StoredKernel(kernel.dense())
        # Capsules are made once: each keeps its tensor, and the kernel only borrows it for the time of a call.
        self._bias = to_dlpack(bias)
        self._table = None if kernel.table is None else to_dlpack(kernel.table)
        self._forward = to_dlpack(_panels(kernel.values))
        self._backward = to_dlpack(_taps(kernel.values)) if self._is_direct else self._forward

    def forward(self, x: Tensor, epilogue: Epilogue, *, mirrored: bool) -> tuple[Tensor, Tensor | None]:
        """Convolve features (1, C, H, W), which are padded by one row and column.

        Returns:
            The result of the epilogue, (1, K, H, W), or (1, K, H / 2, W / 2), rounded up, where it pools. And what the
            backward pass needs to know of the outputs: a bit for each that says whether it passed the epilogue, or the
            result itself for few inputs.
        """
        x = channels_last(x)
        shape = Shape.of(x)
        y = empty_features(self.outputs, *(halved(shape) if epilogue.pools else shape))
        bits = None if self._is_direct or epilogue is NOTHING else self.empty_bits(shape)
        self.forward_rows(
            range(shape.height),
            Rows(x),
            Rows(y),
            None if bits is None else Rows(bits),
            height=shape.height,
            epilogue=epilogue,
            mirrored=mirrored,
        )
        return y, y if self._is_direct and epilogue is not NOTHING else bits

    def empty_bits(self, shape: Shape) -> Tensor:
        """Return uninitialised memory for a bit of each output (1, K, *shape): an int16 for each tile of 4x4."""
        return empty_features(self.outputs, *halved(halved(shape)), torch.int16)

    def backward(
        self, gradient: Tensor, kept: Tensor | None, shape: Shape, epilogue: Epilogue, *, mirrored: bool
    ) -> Tensor:
        """Return the gradient with respect to the input of `forward`, (1, C, *shape).

        Args:
            gradient: the gradient with respect to the result.
            kept: what `forward` returned beside the result.
            shape: the height and width of the input.
            epilogue: the epilogue that `forward` was given.
            mirrored: the padding that `forward` was given.
        """
        grad_input = empty_features(self.inputs, *shape).zero_()
        self.backward_rows(
            range(shape.height),
            Rows(channels_last(gradient)),
            None if kept is None else Rows(kept),
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
            rows: the rows to compute. Their bounds are multiples of `ROWS` or the height, except for few inputs.
            x: the inputs, with a row before and a row after `rows`, where there are any.
            y: where the results are written.
            kept: where the bits of the outputs are written (see `empty_bits`); None for few inputs or no epilogue.
            height: the height of the whole input.
            epilogue: what happens to the outputs. Few inputs are not pooled.
            mirrored: whether the padding mirrors the inputs at the edge of the picture, or is zero.

        Raises:
            ValueError: the features do not fit the convolution, or lack rows that it needs.
        """
        extension.forward(
            x=x.exported(),
            kernel=self._forward,
            table=self._table,
            bias=self._bias,
            y=y.exported(),
            kept=None if kept is None else kept.exported(),
            height=height,
            first_row=rows.start,
            end_row=rows.stop,
            mirrored=mirrored,
            epilogue=epilogue.code,
            scale=epilogue.scale,
            threads=torch.get_num_threads(),
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
        """Add to `grad_input` what comes from some rows of the outputs.

        The arguments are those of `forward_rows`. What it wrote to `kept` is read, and for few inputs the results
        themselves.
        """
        extension.backward(
            gradient=gradient.exported(),
            kept=None if kept is None else kept.exported(),
            kernel=self._backward,
            table=self._table,
            grad_input=grad_input.exported(),
            height=height,
            first_row=rows.start,
            end_row=rows.stop,
            mirrored=mirrored,
            epilogue=epilogue.code,
            scale=epilogue.scale,
            threads=torch.get_num_threads(),
        )


class NativeMaxPool(torch.autograd.Function):
    """2x2 max pooling by the native kernel that rounds up, with the same values and gradients as torch's.

    It keeps nothing but its input, which the convolution before it keeps anyway. torch's keeps an index of eight bytes
    for each result.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return (1, C, H / 2, W / 2), rounded up, of features (1, C, H, W)."""
        x = channels_last(x)
        ctx.save_for_backward(x)
        y = empty_features(x.shape[1], *halved(Shape.of(x)))
        extension.max_pool(x=to_dlpack(x), y=to_dlpack(y), threads=torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient with respect to the input."""
        (x,) = ctx.saved_tensors
        grad_input = torch.empty_like(x)
        extension.max_pool_backward(
            x=to_dlpack(x),
            gradient=to_dlpack(channels_last(gradients[0])),
            grad_input=to_dlpack(grad_input),
            threads=torch.get_num_threads(),
        )
        return grad_input


def _taps(kernel: Tensor) -> Tensor:
    """Return weights (K, C, 3, 3) in the order of the backward pass to few inputs: (K, 9 * C), padded to (K, PANEL)."""
    outputs, inputs = kernel.shape[:2]
    taps = kernel.permute(0, 2, 3, 1).reshape(outputs, 9 * inputs)
    return functional.pad(taps, (0, extension.PANEL - 9 * inputs)).contiguous()


def _panels(kernel: Tensor) -> Tensor:
    """Return weights (K, C, 3, 3) in the order in which the native kernel reads them: (K / PANEL, 9, C, PANEL)."""
    outputs, inputs = kernel.shape[:2]
    panels = kernel.reshape(outputs // extension.PANEL, extension.PANEL, inputs, 9).permute(0, 3, 2, 1)
    return empty(kernel.numel(), kernel.dtype, permanent=True).view(panels.shape).copy_(panels)
