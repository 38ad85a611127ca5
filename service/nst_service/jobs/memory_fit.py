"""The fit of a job into memory, at the requested size or at a smaller one that the request allows."""

from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory, largest_size_within, shorter_history
from nst_service.engine.sizes import fit
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import DoesNotFitError


def fitted(spec: TransferSpec, memory: Memory) -> TransferSpec:
    """Return a specification that fits into the memory: the given one, or a smaller one.

    Raises:
        DoesNotFitError: not even the smallest size that the request allows fits.
    """
    needed = estimate(spec, memory).peak_bytes
    if needed <= memory.available:
        return spec
    smaller = reduced(spec, memory)
    if smaller is None:
        raise does_not_fit(spec, needed, memory)
    return smaller


def reduced(spec: TransferSpec, memory: Memory) -> TransferSpec | None:
    """Return the specification at the largest size that fits; None if the request allows no size that fits."""
    least, largest = spec.options.min_image_size, _largest_size(spec, memory)
    if not 0 < least <= largest:
        return None
    return spec.reduced(fit(spec.content.size, largest))


def does_not_fit(spec: TransferSpec, needed: int, memory: Memory, *, share: float = 1.0) -> DoesNotFitError:
    """Return the error for a job that needs more memory than there is.

    Args:
        spec: the specification of the job.
        needed: bytes that the job needs.
        memory: the memory that the job can have.
        share: the share of the memory that the sizes suggested to the client may need.
    """
    within = memory.share(share)
    return DoesNotFitError(needed, memory.available, _largest_size(spec, within), shorter_history(spec, within))


def _largest_size(spec: TransferSpec, memory: Memory) -> int:
    styles = [style.picture.size for style in spec.styles]
    return largest_size_within(memory, spec.options, spec.content.size, styles)
