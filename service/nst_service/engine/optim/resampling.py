"""Resampling of what an optimiser knows to pictures of another size."""

from torch import Tensor
from torch.nn import functional

from nst_service.engine.sizes import Shape


def resampled(picture: Tensor, shape: Shape) -> Tensor:
    """Return a picture (1, 3, H, W) with another shape, interpolated linearly."""
    return functional.interpolate(picture, shape, mode="bilinear", align_corners=False)


def resampled_gradient(gradient: Tensor, shape: Shape) -> Tensor:
    """Return a gradient (1, 3, H, W) with another shape: the more pixels share an influence, the less each has."""
    picture = resampled(gradient, shape)
    return picture * (gradient.numel() / picture.numel())
