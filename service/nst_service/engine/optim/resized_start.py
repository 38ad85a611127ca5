"""The start of a transfer that goes on at another size than it began with: its picture, and how far it is."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.scales import schedule, step_pixels
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedStart:
    """The position of a transfer, without what is known at its former size only: losses, gradients, curvature."""

    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    done: int
    """Steps done at this scale."""
    iteration: int
    """Steps done over all scales."""
    seconds: float
    """Seconds of work since the first step began."""
    excess_seconds: float
    """Seconds of these that the work would not have taken at this size: it was done at another one."""
    result_pixels: Tensor
    """The pixels of the result so far, (1, 3, H, W) in [0, 1], to go on from."""

    @property
    def size(self) -> Size:
        """Size in pixels of the scale being worked on."""
        return Size.of(self.result_pixels)


def resize_start(start: Snapshot | ResizedStart, spec: TransferSpec) -> Snapshot | ResizedStart:
    """Return the start of the same transfer at the size of a specification.

    A start that has this size already is returned as it is. So is one of a scale that the specification does not have:
    `transfer` refuses it.
    """
    scales = schedule(spec.content.size, spec.options.scale_iterations)
    if not 1 <= start.scale <= len(scales):
        return start
    scale = scales[start.scale - 1]
    if start.size == scale.size:
        return start
    work_ratio = step_pixels(scale.size) / step_pixels(start.size)
    # A step must be left: only what has been evaluated is a result.
    repeated = max(0, start.done + 1 - scale.iterations)
    pixels = functional.interpolate(
        start.result_pixels, scale.size.shape, mode="bicubic", align_corners=False, antialias=True
    )
    return ResizedStart(
        scale=start.scale,
        done=start.done - repeated,
        iteration=start.iteration - repeated,
        seconds=start.seconds,
        excess_seconds=start.seconds - work_ratio * (start.seconds - start.excess_seconds),
        result_pixels=pixels.clamp_(0, 1),
    )
