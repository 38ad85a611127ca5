"""Memory for features on the CPU. It comes from the allocator of the native kernel, the arena, or from torch."""

import torch
from torch import Tensor

from nst_service.engine.native import extension

NATIVE = extension is not None
"""Whether the native kernel was built."""


def empty_features(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return uninitialised features (1, C, H, W) on the CPU, in channels-last memory order.

    Large ones are placed in the arena of the native kernel, where one was built.
    """
    values = empty(channels * height * width, dtype).view(1, height, width, channels)
    # `data`, because autograd adds to a gradient in place only where no other tensor has its memory, as of a view.
    return values.permute(0, 3, 1, 2).data


def empty(count: int, dtype: torch.dtype, *, permanent: bool = False) -> Tensor:
    """Return an uninitialised tensor (count,) on the CPU; a permanent one may stay for the life of the process."""
    size = count * dtype.itemsize
    block = None
    if extension is not None and size >= extension.LARGE:
        block = extension.take(size=size, permanent=permanent)
    return torch.empty(count, dtype=dtype) if block is None else torch.frombuffer(block, dtype=dtype)


def release_features() -> None:
    """Return the memory of features that are gone to the system."""
    if extension is not None:
        extension.trim()


def channels_last(x: Tensor) -> Tensor:
    """Return features (1, C, H, W) in channels-last memory order; those that have it already are not copied."""
    return x.contiguous(memory_format=torch.channels_last)
