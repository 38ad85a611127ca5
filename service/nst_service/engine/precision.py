"""How exactly a GPU computes convolutions."""

from enum import StrEnum

import torch

from nst_service.engine.errors import EngineError

_AMPERE = (8, 0)
"""Compute capability from which the matrix units know TF32 and bfloat16."""


class PrecisionError(EngineError):
    """A precision that a device does not have. The message is for the operator."""


class Precision(StrEnum):
    """The numbers that go into the convolutions of a GPU; a CPU always takes float32.

    Whatever goes in, sums are float32, and so are Gram matrices, losses, the optimiser and the picture.
    """

    FLOAT32 = "float32"
    TF32 = "tf32"
    """Products of numbers that are rounded to 10 bits: what torch does unless told otherwise."""
    BFLOAT16 = "bfloat16"
    """Features and their gradients in half the memory, rounded to 7 bits."""


def resolve_precision(choice: str, devices: list[torch.device]) -> Precision:
    """Return the precision that a choice names.

    Args:
        choice: "auto" (TF32 where all devices have it, or float32), or a precision by its name.
        devices: that it shall hold for.

    Raises:
        PrecisionError: unknown, or a device does not have it.
    """
    lacking = [device for device in devices if not _has_matrix_units(device)]
    if choice == "auto":
        return Precision.FLOAT32 if lacking else Precision.TF32
    if choice not in set(Precision):
        raise PrecisionError(f"precision {choice!r} is unknown; accepted are auto, {', '.join(Precision)}")
    precision = Precision(choice)
    if precision is not Precision.FLOAT32 and lacking:
        raise PrecisionError(
            f"precision {choice!r} needs a GPU of compute capability 8.0 or later; {lacking[0]} is none"
        )
    return precision


def _has_matrix_units(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _AMPERE
