"""Winograd convolutions by operations of torch, for installations without the native kernel.

F(4x4, 3x3) of Lavin & Gray 2016, "Fast algorithms for convolutional neural networks", sections 4.1 and 4.3, computes
4x4 outputs from 6x6 inputs with 36 products instead of 144. Its result differs from the direct one by rounding only,
about 2e-6 of it in float32. The backward pass is the transpose of the forward pass, with the same weights.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.sizes import Shape

_LEAST_CHANNELS = 128
"""Channels of inputs and outputs from which the products outweigh the transforms of `TorchWinograd`."""


_BLOCK = 512
"""Winograd tiles that are transformed at once, which bounds the memory of the transforms."""


# The matrices B^T, G and A^T of Lavin & Gray, section 4.3.
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


class TorchWinograd:
    """A convolution by Winograd's algorithm in operations of torch, for CPUs without the native kernel."""

    @staticmethod
    def fits(kernel: Tensor) -> bool:
        """Return whether this algorithm is the fastest for a kernel (outputs, inputs, 3, 3)."""
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
        """Return the convolution of features (1, C, H, W), padded with zeros, in channels-last memory order."""
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

    def backward(self, gradient: Tensor, shape: Shape, *, padding: int) -> Tensor:
        """Return the gradient with respect to an input (1, C, *shape), in channels-last memory order."""
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
        inside = whole[:, padding : padding + shape.height, padding : padding + shape.width]
        return inside.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each block of Winograd tiles, and its number of rows."""
    step = max(1, _BLOCK // columns)
    for row in range(0, rows, step):
        yield row, min(step, rows - row)


def _squared(transform: tuple[tuple[float, ...], ...]) -> Tensor:
    """Return the matrix that transforms the rows and the columns of a flattened tile at once."""
    matrix = torch.tensor(transform, dtype=torch.float32)
    return torch.kron(matrix, matrix)
