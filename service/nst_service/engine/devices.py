"""The devices that transfers run on: their names, their precision, their memory, and the process that uses them."""

import ctypes
from pathlib import Path

import psutil
import torch

from nst_service.engine.arena import release_features
from nst_service.engine.errors import EngineError
from nst_service.engine.network.precision import Precision, is_gpu

_CGROUP = Path("/sys/fs/cgroup")
_MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
"""The files with the limit of a container, of the second and of the first version of control groups."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt in glibc's malloc.h."""
_NEVER = 2**31 - 1
"""The trim threshold with which malloc never gives memory back by itself, in bytes."""
_MMAP_THRESHOLD = 2**30
"""Bytes from which an allocation gets pages of its own."""
_AMPERE = (8, 0)
"""The compute capability from which the matrix units of a GPU support TF32 and bfloat16."""


class DeviceError(EngineError):
    """The operator asked for a device that is not here, or for a precision that a device does not support."""


def resolve_devices(choice: str) -> list[torch.device]:
    """Return the devices that a choice names.

    Args:
        choice: "auto" (every CUDA device, or the CPU where there is none), "cpu", "cuda" (every CUDA device),
            "cuda:N", or several of these with commas between them.

    Raises:
        DeviceError: a device is unknown or absent.
    """
    devices: list[torch.device] = []
    for name in (part.strip() for part in choice.split(",")):
        found = _resolve(name)
        if not found:
            raise DeviceError(
                f"device {name!r} is not available: this machine has {torch.cuda.device_count()} CUDA devices; "
                "accepted are auto, cpu, cuda and cuda:N"
            )
        devices += [device for device in found if device not in devices]
    return devices


def _resolve(name: str) -> list[torch.device]:
    cuda = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    match name:
        case "auto":
            return cuda or [torch.device("cpu")]
        case "cpu":
            return [torch.device("cpu")]
        case "cuda":
            return cuda
        case _:
            return [device for device in cuda if str(device) == name]


def resolve_precision(choice: str, devices: list[torch.device]) -> Precision:
    """Return the precision that a choice names.

    Args:
        choice: "auto" (TF32 where all devices support it, else float32), or the name of a precision.
        devices: the devices that must support it.

    Raises:
        DeviceError: the precision is unknown, or a device does not support it.
    """
    lacking = [device for device in devices if not _has_matrix_units(device)]
    if choice == "auto":
        return Precision.FLOAT32 if lacking else Precision.TF32
    if choice not in set(Precision):
        raise DeviceError(f"precision {choice!r} is unknown; accepted are auto, {', '.join(Precision)}")
    precision = Precision(choice)
    if precision is not Precision.FLOAT32 and lacking:
        raise DeviceError(
            f"precision {choice!r} needs a GPU of compute capability {'.'.join(map(str, _AMPERE))} or later, "
            f"which device {str(lacking[0])!r} is not"
        )
    return precision


def _has_matrix_units(device: torch.device) -> bool:
    return is_gpu(device) and torch.cuda.get_device_capability(device) >= _AMPERE


def available_bytes(device: torch.device) -> int:
    """Return the bytes that new allocations on the device can have."""
    if is_gpu(device):
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    available = psutil.virtual_memory().available
    # A container may be allowed less than the machine has.
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except OSError:
        return available
    return available if limit == "max" else max(0, min(available, int(limit) - used))


def used_bytes(name: str) -> int | None:
    """Return the bytes of the device with a name that are in use; None for a device of another machine.

    On a GPU they are those of tensors, on the CPU those of this process.
    """
    if name == "cpu":
        return int(psutil.Process().memory_info().rss)
    return torch.cuda.memory_allocated(name) if name.startswith("cuda:") and torch.cuda.is_available() else None


def machine_bytes() -> int:
    """Return the memory of this machine in bytes, or of this container if it is allowed less."""
    limits = [psutil.virtual_memory().total]
    for name in _MEMORY_LIMITS:
        try:
            limit = (_CGROUP / name).read_text().strip()
        except OSError:
            continue
        # Without a limit, it is "max" or a number above any memory.
        if limit.isdigit():
            limits.append(int(limit))
    return min(limits)


def set_up_process(devices: list[torch.device], precision: Precision = Precision.FLOAT32) -> None:
    """Set up this process for transfers, once, before its first thread starts.

    On CUDA, cuDNN takes only algorithms that give the same result every time, in the given precision. On the CPU with
    glibc, freed memory stays in the process: an evaluation allocates and frees the same large activations every time,
    and fresh pages for each of them cost about a tenth of its time (`release_memory` gives them back).
    """
    if any(map(is_gpu, devices)):
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = precision is not Precision.FLOAT32
    if any(device.type == "cpu" for device in devices) and (mallopt := _libc_function("mallopt")):
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
        # Only the main arena grows beyond 64 MiB.
        mallopt(_M_ARENA_MAX, 1)


def release_memory(device: torch.device) -> None:
    """Give memory of the device that is kept for reuse back to the system."""
    if is_gpu(device):
        torch.cuda.empty_cache()
        return
    release_features()
    if malloc_trim := _libc_function("malloc_trim"):
        malloc_trim(0)


def _libc_function(name: str) -> "ctypes._NamedFuncPointer | None":
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except OSError:
        return None
