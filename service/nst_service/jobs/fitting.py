"""How a job fits into the memory there is: at the size that was asked for, or at a smaller one that is allowed."""

from nst_service.engine.estimate import estimate, largest_size_within, shorter_history
from nst_service.engine.pictures import fit
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.errors import DoesNotFitError


def fitted(spec: TransferSpec, available: int, *, on_gpu: bool = False) -> TransferSpec:
    """Return what will be done with the memory that a job may have, in bytes.

    Raises:
        DoesNotFitError: not even the smallest size that is allowed fits.
    """
    needed = estimate(spec, available, on_gpu=on_gpu).peak_bytes
    if needed <= available:
        return spec
    smaller = reduced(spec, available, on_gpu=on_gpu)
    if smaller is None:
        raise does_not_fit(spec, needed, available, on_gpu=on_gpu)
    return smaller


def reduced(spec: TransferSpec, available: int, *, on_gpu: bool = False) -> TransferSpec | None:
    """Return the same at the largest size that fits, if that is allowed; None where it is not."""
    least, largest = spec.options.min_image_size, _largest_size(spec, available, on_gpu=on_gpu)
    if not 0 < least <= largest:
        return None
    return spec.reduced(fit(spec.content.size, largest))


def does_not_fit(
    spec: TransferSpec, needed: int, available: int, *, share: float = 1.0, on_gpu: bool = False
) -> DoesNotFitError:
    """Return the error for a job that needs more memory than there is.

    Args:
        spec: what was to be done.
        needed: bytes.
        available: bytes.
        share: of these that a job can be told to rely on.
        on_gpu: whether the device is a GPU.
    """
    within = round(share * available)
    largest = _largest_size(spec, within, on_gpu=on_gpu)
    return DoesNotFitError(needed, available, largest, shorter_history(spec, within, on_gpu=on_gpu))


def _largest_size(spec: TransferSpec, available: int, *, on_gpu: bool) -> int:
    styles = [style.picture.size for style in spec.styles]
    return largest_size_within(available, spec.options, spec.content.size, styles, on_gpu=on_gpu)
