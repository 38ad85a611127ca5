"""The fit of a job into memory, at the requested size or at a smaller one that the request allows."""

from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory, largest_size_within, shorter_history
from nst_service.engine.outline import TransferOutline
from nst_service.engine.sizes import fit
from nst_service.jobs.errors import DoesNotFitError


def fitted(outline: TransferOutline, memory: Memory) -> TransferOutline:
    """Return an outline that fits into the memory: the given one, or a smaller one.

    Raises:
        DoesNotFitError: not even the smallest size that the request allows fits.
    """
    needed = estimate(outline, memory).peak_bytes
    if needed <= memory.available:
        return outline
    smaller = reduced(outline, memory)
    if smaller is None:
        raise does_not_fit(outline, needed, memory)
    return smaller


def reduced(outline: TransferOutline, memory: Memory) -> TransferOutline | None:
    """Return the outline at the largest size that fits; None if the request allows no size that fits."""
    least, largest = outline.options.min_image_size, _largest_size(outline, memory)
    if not 0 < least <= largest:
        return None
    return outline.reduced(fit(outline.size, largest))


def does_not_fit(outline: TransferOutline, needed: int, memory: Memory, *, share: float = 1.0) -> DoesNotFitError:
    """Return the error for a job that needs more memory than there is.

    Args:
        outline: the outline of the job.
        needed: bytes that the job needs.
        memory: the memory that the job can have.
        share: the share of the memory that the sizes suggested to the client may need.
    """
    within = memory.share(share)
    return DoesNotFitError(
        needed,
        memory.available,
        _largest_size(outline, within),
        shorter_history(outline, within),
        limit=memory.limit,
    )


def _largest_size(outline: TransferOutline, memory: Memory) -> int:
    return largest_size_within(memory, outline.options, outline.size, outline.styles)
