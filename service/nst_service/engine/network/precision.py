"""The precision in which a GPU computes convolutions."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The settings of the server import this module, and its --help need not wait seconds for torch.
    import torch


class Precision(StrEnum):
    """The numbers that a GPU multiplies in convolutions; a CPU always multiplies float32.

    Sums are float32 in every precision, and so are Gram matrices, losses, the optimiser and the picture.
    """

    FLOAT32 = "float32"
    """Numbers of single precision, which are not rounded."""
    TF32 = "tf32"
    """Numbers that are rounded to 10 bits of mantissa before they are multiplied: the default of torch."""
    BFLOAT16 = "bfloat16"
    """Numbers of 7 bits of mantissa: features and their gradients take half the memory."""


def is_gpu(device: "torch.device") -> bool:
    """Return whether a device is a GPU."""
    return device.type == "cuda"
