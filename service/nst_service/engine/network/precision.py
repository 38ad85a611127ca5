"""How exactly a GPU computes convolutions."""

from enum import StrEnum

import torch


class Precision(StrEnum):
    """The numbers that go into the convolutions of a GPU; a CPU always takes float32.

    Whatever goes in, sums are float32, and so are Gram matrices, losses, the optimiser and the picture.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    """Products of numbers that are rounded to 10 bits: what torch does unless told otherwise."""
    BFLOAT16 = "bfloat16"
    """Features and their gradients in half the memory, rounded to 7 bits."""


def is_gpu(device: torch.device) -> bool:
    """Return whether a device is a GPU."""
    return device.type == "cuda"
