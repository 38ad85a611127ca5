"""The implementations of the network's convolutions."""

from enum import StrEnum

import torch

from nst_service.engine.arena import NATIVE


class Backend(StrEnum):
    """An implementation of the convolutions, on which depends what they keep for the backward pass."""

    NATIVE = "native"
    """The native kernel, on CPUs."""
    TORCH = "torch"
    """Operations of torch: on GPUs, and on CPUs where the native kernel was not built."""

    @classmethod
    def of(cls, device: torch.device) -> "Backend":
        """Return the backend of a device."""
        return cls.NATIVE if NATIVE and device.type == "cpu" else cls.TORCH


CPU_BACKEND = Backend.of(torch.device("cpu"))
"""The backend of this machine's CPU."""
