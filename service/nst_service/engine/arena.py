"""Memory for features on the CPU: the arena of the native kernel, or torch's allocator where it was not built."""

import torch
from torch import Tensor

try:
    # Shares the threads of torch, whose OpenMP was loaded above.
    from nst_service.engine import _winograd
except ImportError:
    _winograd = None  # type: ignore[assignment]

NATIVE = _winograd is not None
"""Whether the native kernel was built."""


def empty_features(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return features (1, C, H, W) on the CPU, in channels-last memory order, that nothing has been written to.

    Large ones have a place in the arena of the native kernel, where it was built.
    """
    values = empty(channels * height * width, dtype).view(1, height, width, channels)
    # `data`, or it were a view: autograd adds to a gradient in place where no other tensor has its memory.
    return values.permute(0, 3, 1, 2).data


def empty(count: int, dtype: torch.dtype, *, stays: bool = False) -> Tensor:
    """Return a tensor (count,) that nothing has been written to, which may be one that stays for good."""
    size = count * dtype.itemsize
    block = _winograd.take(size, stays) if _winograd is not None and size >= _winograd.LARGE else None
    return torch.empty(count, dtype=dtype) if block is None else torch.frombuffer(block, dtype=dtype)


def release_features() -> None:
    """Give the memory of features that are gone back to the system."""
    if _winograd is not None:
        _winograd.trim()


def channels_last(x: Tensor) -> Tensor:
    """Return features (1, C, H, W) in channels-last memory order; those that are so already are not copied."""
    return x.contiguous(memory_format=torch.channels_last)
