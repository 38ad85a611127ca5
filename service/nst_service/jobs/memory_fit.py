"""How a job fits into the memory there is: at the size that was asked for, or at a smaller one that is allowed."""

from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory, largest_size_within, shorter_history
from nst_service.engine.sizes import fit
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import DoesNotFitError


def fitted(spec: TransferSpec, memory: Memory) -> TransferSpec:
    """Return what will be done with the memory that a job may have.

    Raises:
        DoesNotFitError: not even the smallest size that is allowed fits.
    """
    needed = estimate(spec, memory).peak_bytes
    if needed <= memory.available:
        return spec
    smaller = reduced(spec, memory)
    if smaller is None:
        raise does_not_fit(spec, needed, memory)
    return smaller


def reduced(spec: TransferSpec, memory: Memory) -> TransferSpec | None:
    """Return the same at the largest size that fits, if that is allowed; None where it is not."""
    least, largest = spec.options.min_image_size, _largest_size(spec, memory)
    if not 0 < least <= largest:
        return None
    return spec.reduced(fit(spec.content.size, largest))


def does_not_fit(spec: TransferSpec, needed: int, memory: Memory, *, share: float = 1.0) -> DoesNotFitError:
    """Return the error for a job that needs more memory than there is.

    Args:
        spec: what was to be done.
        needed: bytes.
        memory: what there is.
        share: of it that a job can be told to rely on.
    """
    within = memory.share(share)
    return DoesNotFitError(needed, memory.available, _largest_size(spec, within), shorter_history(spec, within))


def _largest_size(spec: TransferSpec, memory: Memory) -> int:
    styles = [style.picture.size for style in spec.styles]
    return largest_size_within(memory, spec.options, spec.content.size, styles)
