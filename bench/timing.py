"""Seconds of work on a device, and the rate of matrix products that work on it can be compared with."""

import time
from collections.abc import Callable

import torch
from nst_service.engine.network.precision import Precision, is_gpu

_EDGES = {"cpu": 2048, "cuda": 8192}
"""Edge of the multiplied matrices by the type of the device: large enough to keep all of its units busy."""
_PRODUCTS = 15
"""Number of products that are timed."""


def seconds_of(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Return the seconds that some work takes, until the device has finished it."""
    _synchronize(device)
    started = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - started


def matrix_rate(device: torch.device, precision: Precision = Precision.FLOAT32) -> float:
    """Return the operations per second of a dense product of random matrices: the highest rate that can be expected."""
    dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else torch.float32
    edge = _EDGES[device.type]
    left, right = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    torch.backends.cuda.matmul.allow_tf32 = precision is Precision.TF32
    fastest = min(seconds_of(lambda: left @ right, device) for _ in range(_PRODUCTS))
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2 * edge**3 / fastest


def _synchronize(device: torch.device | None) -> None:
    if device is not None and is_gpu(device):
        torch.cuda.synchronize(device)
