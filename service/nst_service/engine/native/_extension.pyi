from typing import TypeAlias

from typing_extensions import CapsuleType

INTERFACE: int
"""The version of these functions."""
INSTRUCTION_SET: str
"""The instructions that the convolutions use: avx512, avx2 or portable."""
PANEL: int
"""The numbers of channels that a convolution takes are multiples of this one."""
FEW_INPUTS: int
"""The largest number of input channels that need not be a multiple of PANEL."""
LARGE: int
"""The size in bytes from which an allocation belongs in the arena."""

Rows: TypeAlias = tuple[CapsuleType, int]
"""Consecutive rows of features (1, C, H, W) in channels-last memory order, and the index of the first among all H."""

# A capsule holds a tensor by DLPack: on the CPU, and float32 unless noted otherwise. Each function raises a TypeError
# for an argument that is missing, unknown or of the wrong type, and a ValueError for one that does not fit the others.

def forward(
    *,
    x: Rows,
    kernel: CapsuleType,
    table: CapsuleType | None,
    bias: CapsuleType,
    y: Rows,
    kept: Rows | None,
    height: int,
    first_row: int,
    end_row: int,
    mirrored: bool,
    epilogue: int,
    scale: float,
    threads: int,
) -> None:
    """Compute rows of the outputs of a 3x3 convolution.

    Args:
        x: the inputs, with a row before and a row after those that are computed, where there are any.
        kernel: the weights (K / PANEL, 9, C, PANEL), float32, or uint8 where they are indices into `table`.
        table: the 256 values that the weights can have, or None. Always None for few inputs.
        bias: (K,).
        y: where the outputs are written.
        kept: where an int16 for each tile of 4x4 outputs is written, with a bit for each output that says whether it
            passed the epilogue. Unused for epilogue 0 and for few inputs.
        height: the height of the whole input.
        first_row: the first row to compute; a multiple of 4, except for few inputs.
        end_row: the row after the last one to compute; a multiple of 4 or the height, except for few inputs.
        mirrored: whether the padding mirrors the inputs at the edge of the picture, or is zero.
        epilogue: 0 for nothing, 1 for a ReLU, 2 for a ReLU and max pooling, 3 for a ReLU and average pooling. Few
            inputs allow 0 and 1.
        scale: the factor of averages.
        threads: the number of threads to use.
    """

def backward(
    *,
    gradient: Rows,
    kept: Rows | None,
    kernel: CapsuleType,
    table: CapsuleType | None,
    grad_input: Rows,
    height: int,
    first_row: int,
    end_row: int,
    mirrored: bool,
    epilogue: int,
    scale: float,
    threads: int,
) -> None:
    """Add to the gradient with respect to the inputs of a 3x3 convolution what comes from rows of its outputs.

    Args:
        gradient: the gradient with respect to y.
        kept: what `forward` wrote there, or y for few inputs. Unused for epilogue 0.
        kernel: the weights that `forward` was given. For few inputs, other than there, (K, PANEL), of whose rows the
            first 9 * C are used.
        table: the table that `forward` was given.
        grad_input: the gradient with respect to x, which is added to: the same rows as those of x.
        height: the height of the whole input.
        first_row: the first row of the outputs, as of `forward`.
        end_row: the row after the last one, as of `forward`.
        mirrored: the padding that `forward` was given.
        epilogue: the epilogue that `forward` was given.
        scale: the factor that `forward` was given.
        threads: the number of threads to use.
    """

def max_pool(*, x: CapsuleType, y: CapsuleType, threads: int) -> None:
    """Write to y the maxima of 2x2 windows of features (1, C, H, W) in channels-last memory order, rounding up."""

def max_pool_backward(*, x: CapsuleType, gradient: CapsuleType, grad_input: CapsuleType, threads: int) -> None:
    """Write the gradient with respect to x, given that with respect to y."""

class Block:
    """Memory of the arena: a writable buffer."""

def take(*, size: int, permanent: bool) -> Block | None:
    """Return a block of this size in bytes, or None where the arena has no room for it.

    A permanent one may live as long as the process. It is placed where it does not fragment the space of the others.
    """

def trim() -> None:
    """Return the memory of free blocks to the system."""
