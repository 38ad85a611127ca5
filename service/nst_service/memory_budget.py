"""The division of the memory of a server among what takes it."""

from dataclasses import dataclass

from nst_service.jobs.planner import PREPARING_THREADS
from nst_service.reloaded import SettingError

_MIB = 2**20

SMALL_READS = 2
"""The number of requests without pictures that are read at once, each with room for the largest message."""
_CALL_BYTES = 48 * 2**10
"""Memory of a call in bytes: its part of a request that is not read yet, a small message, and its tasks."""
_SPARE_BYTES = 96 * _MIB
"""Memory of the libraries, of threads and of records that grow while a server runs, in bytes."""

_PENDING = (8, 512 * _MIB)
_DELIVERY = (16, 128 * _MIB)
_DECODER = (6, 2048 * _MIB)
"""The share of the memory, as its inverse, and the largest number of bytes."""
_LEAST_DELIVERY, _LEAST_DECODER = 8 * _MIB, 256 * _MIB
_LEAST_JOBS = 160 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBudget:
    """The parts of the memory of a server, in bytes."""

    total: int
    """The memory of the server and of its processes that decode."""
    pending: int
    """The requests with pictures that are received or checked."""
    delivery: int
    """The messages that are being sent."""
    decoder: int
    """Each process that decodes pictures."""
    jobs: int
    """The jobs that run: their pictures, and their work if a device computes in the memory of the machine."""


class TooLittleMemoryError(SettingError):
    """The memory of a server does not suffice."""

    def __init__(self, total: int, least: MemoryBudget):
        super().__init__(
            f"memory_bytes is {total}, which is too little: this server needs about {-(-least.total // _MIB)} MiB; "
            "lower values of max_request_bytes, max_pending_bytes and max_calls need less"
        )
        self.least = least
        """The smallest budget that suffices."""


def divide(
    total: int, *, resting: int, max_request_bytes: int, max_calls: int, decoders: int, pending: int = 0
) -> MemoryBudget:
    """Divide the memory of a server.

    Args:
        total: the memory in bytes.
        resting: what the server takes with its weights loaded, before its first call.
        max_request_bytes: the largest size of a request.
        max_calls: the number of calls that may be open at once.
        decoders: the number of processes that decode.
        pending: bytes of the requests that are received or checked; 0 for a part of the memory.

    Raises:
        SettingError: the memory does not suffice.
    """
    fixed = resting + _SPARE_BYTES + (SMALL_READS + PREPARING_THREADS) * max_request_bytes + max_calls * _CALL_BYTES

    def divided(left: int) -> MemoryBudget:
        held = pending or max(max_request_bytes, _part(left, *_PENDING))
        delivery = max(_LEAST_DELIVERY, _part(left, *_DELIVERY))
        decoder = max(_LEAST_DECODER, _part(left, *_DECODER))
        jobs = left - held - delivery - decoders * decoder
        return MemoryBudget(total=fixed + left, pending=held, delivery=delivery, decoder=decoder, jobs=jobs)

    budget = divided(total - fixed)
    if budget.jobs >= _LEAST_JOBS:
        return budget
    left = max(0, total - fixed)
    while divided(left).jobs < _LEAST_JOBS:
        left += _MIB
    raise TooLittleMemoryError(total, divided(left))


def _part(size: int, divisor: int, largest: int) -> int:
    return max(0, min(size // divisor, largest))
