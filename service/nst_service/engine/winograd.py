"""Winograd's way to convolve 3x3 on CPUs: by a native kernel where it was built, or by operations of torch.

The native kernel has what stands around it, too: a first layer of few inputs, ReLU and pooling.

F(4x4, 3x3) of Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", sections 4.1 and 4.3, computes
4x4 outputs from 6x6 inputs with 36 products instead of 144. Its result differs from the direct one by rounding only,
about 2e-6 of it in float32. The way back is the transpose of the way forward, with the same weights.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.kernel import Kernel

try:
    # Shares the threads of torch, whose OpenMP was loaded above.
    from nst_service.engine import _winograd
except ImportError:
    _winograd = None  # type: ignore[assignment]

NATIVE = _winograd is not None
"""Whether the native kernel was built."""

_LEAST_CHANNELS = 128
"""Of input and output, from which the products outweigh the transforms of `TorchWinograd`."""
_BLOCK = 512
"""Winograd tiles that are worked on at once: bounds the memory of the transforms."""

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_KERNEL = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def empty_features(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return features (1, C, H, W) on the CPU, in channels-last memory order, that nothing has been written to.

    Large ones have a place in the arena of the native kernel, where it was built.
    """
    values = _empty(channels * height * width, dtype).view(1, height, width, channels)
    # `data`, or it were a view: autograd adds to a gradient in place where no other tensor has its memory.
    return values.permute(0, 3, 1, 2).data


def _empty(count: int, dtype: torch.dtype, *, stays: bool = False) -> Tensor:
    """Return a tensor (count,) that nothing has been written to, which may be one that stays for good."""
    size = count * dtype.itemsize
    block = _winograd.take(size, stays) if _winograd is not None and size >= _winograd.LARGE else None
    return torch.empty(count, dtype=dtype) if block is None else torch.frombuffer(block, dtype=dtype)


def release_features() -> None:
    """Give the memory of features that are gone back to the system."""
    if _winograd is not None:
        _winograd.trim()


class Then(NamedTuple):
    """What the native kernel does to the outputs of a convolution before they reach the memory."""

    code: int
    """As the kernel has it."""
    scale: float = 1.0
    """Of averages."""
    pools: bool = False
    """Whether the result has half the height and width, rounded up."""


NOTHING, RELU = Then(0), Then(1)
MAX_POOL = Then(2, pools=True)
"""After a ReLU."""


def average_pool(scale: float) -> Then:
    """Pool by scaled averages, after a ReLU."""
    return Then(3, scale, pools=True)


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
    def fits(kernel: Kernel, device: torch.device) -> bool:
        """Whether the native kernel was built and has a way to convolve with this one."""
        if _winograd is None or device.type != "cpu":
            return False
        outputs, inputs = kernel.shape[:2]
        return outputs % _winograd.PANEL == 0 and (inputs % _winograd.PANEL == 0 or inputs <= _winograd.FEW_INPUTS)

    def __init__(self, kernel: Kernel, bias: Tensor):
        self._bias = bias
        self.outputs, self.inputs = kernel.shape[:2]
        self._is_direct = self.inputs <= _winograd.FEW_INPUTS
        if self._is_direct:
            kernel = Kernel(kernel.dense())
        self._table = kernel.table
        self._table_address = 0 if kernel.table is None else kernel.table.data_ptr()
        self._forward = _panels(kernel.values)
        self._backward = _taps(kernel.values) if self._is_direct else self._forward

    def forward(self, x: Tensor, then: Then, *, mirrored: bool) -> tuple[Tensor, Tensor | None]:
        """Convolve features (1, C, H, W) with one row and column around them.

        Returns:
            What comes of it, (1, K, H, W) or half as high and wide where it is pooled, and what the way back needs to
            know of it: which outputs passed, a bit for each.
        """
        x = _channels_last(x)
        size = height, _ = x.shape[-2:]
        y = empty_features(self.outputs, *(halved(size) if then.pools else size))
        kept = None
        if then is not NOTHING:
            kept = y if self._is_direct else self.empty_bits(size)
        noted = None if kept is None else Rows(kept)
        self.forward_rows(range(height), Rows(x), Rows(y), noted, height=height, then=then, mirrored=mirrored)
        return y, kept

    def empty_bits(self, size: Sequence[int]) -> Tensor:
        """Return the place of a bit for each output (1, K, *size): 16 for every tile of 4x4."""
        return empty_features(self.outputs, *halved(halved(size)), torch.int16)

    def backward(
        self, gradient: Tensor, kept: Tensor | None, size: tuple[int, int], then: Then, *, mirrored: bool
    ) -> Tensor:
        """Return the gradient by an input (1, C, *size) from that by the result of `forward`."""
        by_input = empty_features(self.inputs, *size).zero_()
        gradient = _channels_last(gradient)
        noted = None if kept is None else Rows(kept)
        self.backward_rows(
            range(size[0]), Rows(gradient), noted, Rows(by_input), height=size[0], then=then, mirrored=mirrored
        )
        return by_input

    def forward_rows(
        self, rows: range, x: Rows, y: Rows, kept: Rows | None, *, height: int, then: Then, mirrored: bool
    ) -> None:
        """Compute some rows of the outputs.

        Args:
            rows: which ones. Their bounds are multiples of `ROWS` where they are not that of the picture, but for few
                inputs.
            x: the inputs, with a row before and a row after those that take part.
            y: where the results go.
            kept: where what `forward` keeps goes.
            height: of all outputs.
            then: what becomes of them.
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
            then.code,
            then.scale,
            torch.get_num_threads(),
        )

    def backward_rows(
        self, rows: range, gradient: Rows, kept: Rows | None, by_input: Rows, *, height: int, then: Then, mirrored: bool
    ) -> None:
        """Add to the gradient by the input what comes from some rows of the outputs (see `forward_rows`)."""
        _winograd.backward(
            gradient.address,
            0 if kept is None else kept.address,
            self._backward.data_ptr(),
            self._table_address,
            by_input.address,
            height,
            by_input.width,
            rows.start,
            rows.stop,
            self.inputs,
            self.outputs,
            mirrored,
            then.code,
            then.scale,
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
        x = _channels_last(x)
        ctx.save_for_backward(x)
        _, channels, height, width = x.shape
        y = empty_features(channels, *halved((height, width)))
        _winograd.pool(x.data_ptr(), y.data_ptr(), height, width, channels, torch.get_num_threads())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient by the input."""
        (x,) = ctx.saved_tensors
        gradient = _channels_last(gradients[0])
        by_input = torch.empty_like(x)
        _, channels, height, width = x.shape
        _winograd.unpool(
            x.data_ptr(), gradient.data_ptr(), by_input.data_ptr(), height, width, channels, torch.get_num_threads()
        )
        return by_input


class TorchWinograd:
    """A convolution by operations of torch, for machines on which the native one was not built."""

    @staticmethod
    def fits(kernel: Tensor) -> bool:
        """Whether this way is the fastest for a kernel (outputs, inputs, 3, 3)."""
        return kernel.device.type == "cpu" and min(kernel.shape[:2]) >= _LEAST_CHANNELS

    def __init__(self, kernel: Tensor, bias: Tensor):
        self._bias = bias
        outputs, inputs = kernel.shape[:2]
        transform = torch.tensor(_KERNEL, dtype=torch.float64)
        self._weights = torch.empty(36, inputs, outputs)
        for start in range(0, outputs, _LEAST_CHANNELS):  # In double precision, some at a time for want of memory.
            some = kernel[start : start + _LEAST_CHANNELS].double()
            transformed = torch.einsum("ai,kcij,bj->abck", transform, some, transform)
            self._weights[:, :, start : start + _LEAST_CHANNELS] = transformed.flatten(0, 1)
        self._input = _squared(_INPUT)
        self._output = _squared(_OUTPUT)

    def forward(self, x: Tensor, *, padding: int, relu: bool) -> Tensor:
        """Convolve features (1, C, H, W) with zeros around them; returns channels-last memory order."""
        _, inputs, height, width = x.shape
        height, width = height + 2 * padding - 2, width + 2 * padding - 2
        rows, columns = -(-height // 4), -(-width // 4)
        outputs = self._weights.shape[2]
        padded = functional.pad(
            x.permute(0, 2, 3, 1)[0],
            (0, 0, padding, 4 * columns + 2 - padding - x.shape[3], padding, 4 * rows + 2 - padding - x.shape[2]),
        ).contiguous()
        down, right, _ = padded.stride()
        result = torch.empty((1, outputs, height, width), memory_format=torch.channels_last)
        fits = height % 4 == 0 and width % 4 == 0
        # Where tiles reach beyond the edge, they are laid out elsewhere first.
        whole = result.permute(0, 2, 3, 1) if fits else torch.empty(1, 4 * rows, 4 * columns, outputs)
        laid = whole.view(rows, 4, columns, 4, outputs)
        for row, count in _blocks(rows, columns):
            # Every 6x6 inputs overlap their neighbours by two.
            patches = padded.as_strided(
                (6, 6, count, columns, inputs), (down, right, 4 * down, 4 * right, 1), 4 * row * down
            ).reshape(36, -1)
            spectrum = torch.mm(self._input, patches).view(36, count * columns, inputs)
            products = torch.bmm(spectrum, self._weights).view(36, -1)
            tiles = torch.mm(self._output, products).view(4, 4, count, columns, outputs)
            laid[row : row + count] = tiles.permute(2, 0, 3, 1, 4)
        if not fits:
            result.copy_(whole[:, :height, :width].permute(0, 3, 1, 2))
        result.add_(self._bias.view(1, -1, 1, 1))
        return result.relu_() if relu else result

    def backward(self, gradient: Tensor, size: tuple[int, int], *, padding: int) -> Tensor:
        """Return the gradient by an input (1, C, *size), in channels-last memory order."""
        _, outputs, height, width = gradient.shape
        rows, columns = -(-height // 4), -(-width // 4)
        inputs = self._weights.shape[1]
        padded = functional.pad(
            gradient.permute(0, 2, 3, 1)[0], (0, 0, 0, 4 * columns - width, 0, 4 * rows - height)
        ).contiguous()
        # A row and a column of tiles more, for what reaches into them from the last ones.
        result = torch.zeros(rows + 1, 4, columns + 1, 4, inputs)
        for row, count in _blocks(rows, columns):
            tiles = padded[4 * row : 4 * (row + count)].view(count, 4, columns, 4, outputs).permute(1, 3, 0, 2, 4)
            products = torch.mm(self._output.T, tiles.reshape(16, -1)).view(36, count * columns, outputs)
            spectrum = torch.bmm(products, self._weights.transpose(1, 2)).view(36, -1)
            patches = torch.mm(self._input.T, spectrum).view(6, 6, count, columns, inputs).permute(2, 0, 3, 1, 4)
            below = slice(row + 1, row + count + 1)
            result[row : row + count, :, :-1] += patches[:, :4, :, :4]
            result[row : row + count, :, 1:, :2] += patches[:, :4, :, 4:]
            result[below, :2, :-1] += patches[:, 4:, :, :4]
            result[below, :2, 1:, :2] += patches[:, 4:, :, 4:]
        whole = result.view(1, 4 * rows + 4, 4 * columns + 4, inputs)
        inside = whole[:, padding : padding + size[0], padding : padding + size[1]]
        return inside.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each block of tiles, and how many rows it has."""
    step = max(1, _BLOCK // columns)
    for row in range(0, rows, step):
        yield row, min(step, rows - row)


def _squared(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return the transform of rows and columns at once."""
    matrix = torch.tensor(transform, dtype=torch.float32)
    return torch.kron(matrix, matrix)


def _taps(kernel: Tensor) -> Tensor:
    """Return a kernel (K, C, 3, 3) in the order in which the native one goes back to few inputs: (K, 9 * C, ...)."""
    outputs, inputs = kernel.shape[:2]
    taps = kernel.permute(0, 2, 3, 1).reshape(outputs, 9 * inputs)
    return functional.pad(taps, (0, _winograd.PANEL - 9 * inputs)).contiguous()


def _panels(kernel: Tensor) -> Tensor:
    """Return a kernel (K, C, 3, 3) in the order in which the native one reads it: (K / PANEL, 9, C, PANEL)."""
    outputs, inputs = kernel.shape[:2]
    panels = kernel.reshape(outputs // _winograd.PANEL, _winograd.PANEL, inputs, 9).permute(0, 3, 2, 1)
    return _empty(kernel.numel(), kernel.dtype, stays=True).view(panels.shape).copy_(panels)


def halved(size: Sequence[int]) -> tuple[int, int]:
    """Return half of a size, rounded up."""
    height, width = size
    return -(-height // 2), -(-width // 2)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
