"""A transfer that goes on at another size than it began with: its picture, and how far it is."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.scales import schedule, step_pixels
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizedStart:
    """Where a transfer stands, without all that is known of the size it was at: losses, gradients, curvature."""

    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    done: int
    """Steps done at this scale."""
    iteration: int
    """Steps done over all scales."""
    seconds: float
    """Of work since the first step began."""
    excess_seconds: float
    """Of these, what the work until now would not have taken at this size: it was done at another one."""
    pixels: Tensor
    """The picture to go on from, (1, 3, H, W) in [0, 1]."""

    @property
    def size(self) -> Size:
        """Of the scale being worked on, in pixels."""
        return Size.of(self.pixels)


def resize_start(start: Snapshot | ResizedStart, spec: TransferSpec) -> Snapshot | ResizedStart:
    """Return where a transfer stands, for the same transfer at the size of a specification.

    What is of that size already stays as it is, and so does what no scale of it fits: `transfer` refuses that.
    """
    scales = schedule(spec.content.size, spec.options.scale_iterations)
    if not 1 <= start.scale <= len(scales):
        return start
    scale = scales[start.scale - 1]
    if start.size == scale.size:
        return start
    as_if_here = step_pixels(scale.size) / step_pixels(start.size)
    # A step must be left: only what has been evaluated is a result.
    again = max(0, start.done + 1 - scale.iterations)
    width, height = scale.size
    pixels = functional.interpolate(
        _picture(start), (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    return ResizedStart(
        scale=start.scale,
        done=start.done - again,
        iteration=start.iteration - again,
        seconds=start.seconds,
        excess_seconds=start.seconds - as_if_here * (start.seconds - start.excess_seconds),
        pixels=pixels.clamp_(0, 1),
    )


def _picture(start: Snapshot | ResizedStart) -> Tensor:
    if isinstance(start, ResizedStart):
        return start.pixels
    return start.best.pixels if start.average is None else start.average
