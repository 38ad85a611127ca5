"""The losses, each one weighted term of the objective.

A loss on features is split in two: a statistic of the features that can be gathered part by part, and a value of the
whole statistic. With that, the same loss works on a picture as a whole and tile by tile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from nst_service.engine.arena import empty_features
from nst_service.engine.network.layers import WHOLE, Window

_RIDGE = 1e-3
"""Added to the diagonal of a covariance, relative to its mean: features that never vary have no inverse."""
_LAPLACIAN_POOL = 4


class LossKind(StrEnum):
    """The losses by name."""

    CONTENT = "content"
    STYLE = "style"
    TOTAL_VARIATION = "total_variation"
    LAPLACIAN = "laplacian"
    TEMPORAL = "temporal"


class Term(NamedTuple):
    """Names one term of the objective."""

    kind: LossKind
    layer: str = ""
    """Empty for losses on pixels."""


class FeatureLoss(Protocol):
    """A loss on the features of one layer."""

    @property
    def waits(self) -> bool:
        """Whether the host must look at numbers of the device to compute it."""

    @property
    def term(self) -> Term:
        """The name of the term."""

    def statistic(self, features: Tensor, window: Window) -> Tensor:
        """Return what the loss needs to know of the features (1, C, h, w) of a window."""

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole from those of its parts."""

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar, from the statistic of the whole."""


class PixelLoss(Protocol):
    """A loss on the picture itself."""

    @property
    def term(self) -> Term:
        """The name of the term."""

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar, of pixels (1, 3, H, W)."""


@dataclass(frozen=True, slots=True)
class ContentLoss:
    """Mean squared difference of features at one layer (Gatys, Ecker & Bethge 2016, equation 1)."""

    layer: str
    weight: float
    target: Tensor
    """(1, C, h, w), the features of the content picture."""

    @property
    def waits(self) -> bool:
        """Whether the host must look at numbers of the device to compute it."""
        return False

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.CONTENT, self.layer)

    def statistic(self, features: Tensor, window: Window) -> Tensor:
        """Return the sum of squared differences, over the number of all features."""
        rows, columns = window
        target = self.target[..., rows, columns].float()
        return functional.mse_loss(features.float(), target) * (target.numel() / self.target.numel())

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Add the parts."""
        return _added(parts)

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * statistic


class Region(NamedTuple):
    """The part of the picture that a style applies to, at the resolution of one layer."""

    mask: Tensor | None
    """(1, 1, h, w) in [0, 1], or None for the whole picture."""
    area: float
    """Sum of the mask, or h * w."""


Distance = Callable[[Tensor], Tensor]
"""Tells how far a statistic is from its target: a scalar, 0 at the target."""


class StyleStatistic(Protocol):
    """What a style loss compares: a statistic of features that forgets where they are."""

    degree: int
    """Multiplying the features by a factor multiplies the distance by its power of this degree."""
    waits: bool
    """Whether the host must look at numbers of the device to compute it."""

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the part of the statistic of a region that comes from the features (1, C, h, w) of a window."""

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole from those of its parts."""

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the target that several styles have in common; their shares sum to one."""

    def distance_to(self, target: Tensor) -> Distance:
        """Return the distance of statistics to a target."""


class _Mean:
    """A statistic that is a mean over the features of a region."""

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Add the parts: each was divided by the area of the whole."""
        return _added(parts)

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the weighted mean: the statistic of the mixture."""
        return _added([share * statistic for statistic, share in statistics])


class _Products(torch.autograd.Function):
    """The sum of w v v^T over the vectors v of features (1, C, h, w), with weights (h * w, 1).

    One product back, where autograd takes two.

    It is float32 whatever the vectors are.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, weights)
        vectors = _vectors(features)
        if vectors.dtype is torch.float32 or weights is not None:
            vectors = vectors.float()
            return _weighted(vectors, weights).T @ vectors
        return torch.mm(vectors.T, vectors, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        features, weights = ctx.saved_tensors
        slope = (gradients[0] + gradients[0].T).to(features.dtype)
        if features.device.type == "cpu":
            by_features = empty_features(*features.shape[1:])
            by_vectors = torch.mm(_vectors(features), slope, out=_vectors(by_features))
        else:
            by_vectors = _vectors(features) @ slope
            by_features = by_vectors.view(1, *features.shape[2:], -1).permute(0, 3, 1, 2)
        if weights is not None:
            by_vectors *= weights
        return by_features, None


class Gram(_Mean):
    """The Gram matrix, compared by mean squared difference (Gatys, Ecker & Bethge 2016, equations 3 and 4).

    With a mask it is a guided one (Gatys et al. 2017, "Controlling perceptual factors", section 4).
    """

    degree = 4
    waits = False

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the part of the Gram matrix (C, C)."""
        products: Tensor = _Products.apply(features, _weights(region, window))
        return products / (region.area * features.shape[1])

    def distance_to(self, target: Tensor) -> Distance:
        """Return the mean squared difference."""
        return lambda gram: functional.mse_loss(gram, target)


class Moments(_Mean):
    """Mean and covariance, compared as two Gaussians are.

    The squared Wasserstein-2 distance over the number of channels (Olkin & Pukelsheim 1982):

        |m - n|^2 + tr(S) + tr(T) - 2 tr((T^1/2 S T^1/2)^1/2)
    """

    degree = 2
    waits = True

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the part of the means of v v^T and of v over the vectors v, one above the other: (C + 1, C)."""
        weights = _weights(region, window)
        products: Tensor = _Products.apply(features, weights)
        sums = _weighted(_vectors(features).float(), weights).sum(0, keepdim=True)
        return torch.cat([products, sums]) / region.area

    def distance_to(self, target: Tensor) -> Distance:
        """Return the squared Wasserstein-2 distance over the number of channels."""
        aim, covariance = target[-1], _covariance(target)
        values, vectors = torch.linalg.eigh(covariance)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        trace = covariance.trace()

        def distance(moments: Tensor) -> Tensor:
            mean, covariance = moments[-1], _covariance(moments)
            fidelity: Tensor = _TraceOfRoot.apply(covariance, root)
            spread = (covariance.trace() + trace - 2 * fidelity).clamp(min=0)
            return ((mean - aim).square().sum() + spread) / len(mean)

        return distance


class SlicedProjections:
    """The distribution of features, seen from several directions.

    Compared by the mean squared difference of sorted projections (Heitz et al. 2021, "A sliced Wasserstein loss for
    neural texture synthesis", equation 6). With a mask, features count where it is above half of its maximum, which is
    less than one where a narrow region ends up between the features of a deep layer.
    """

    degree = 2
    waits = True

    def __init__(self, directions: Tensor):
        """Take directions (C, K), orthonormal."""
        self._directions = directions

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the projections (K, n) of the n features of the window."""
        vectors = _vectors(features).float()
        if region.mask is not None:
            vectors = vectors[_part(region.mask, window).reshape(-1) > region.mask.max() / 2]
        return (vectors @ self._directions).T

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Put the parts side by side."""
        return torch.cat(list(parts), 1)

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the sorted projections of the Wasserstein barycentre: the weighted mean of the quantiles."""
        count = max(values.shape[1] for values, _ in statistics)
        return torch.stack([share * _quantiles(_sorted(values), count) for values, share in statistics]).sum(0)

    def distance_to(self, target: Tensor) -> Distance:
        """Return the mean squared difference of the quantiles."""
        return lambda values: functional.mse_loss(_sorted(values), _quantiles(target, values.shape[1]))


class StyleLoss:
    """Distance of a statistic of the features at one layer to that of the style."""

    def __init__(self, layer: str, weight: float, statistic: StyleStatistic, target: Tensor, region: Region):
        """Make the loss.

        Args:
            layer: whose features are looked at.
            weight: of the loss.
            statistic: what is compared.
            target: the statistic of the style.
            region: where the style applies.
        """
        self.term = Term(LossKind.STYLE, layer)
        self.waits = statistic.waits
        self._weight = weight
        self._statistic = statistic
        self._region = region
        self._distance = statistic.distance_to(target)

    def statistic(self, features: Tensor, window: Window) -> Tensor:
        """Return the part of the statistic that comes from the window."""
        return self._statistic.gather(features, self._region, window)

    def combine(self, parts: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole from those of its parts."""
        return self._statistic.combine(parts)

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self._weight * self._distance(statistic)


@dataclass(frozen=True, slots=True)
class TotalVariationLoss:
    """Smoothness of the picture, the denoising prior of Mahendran & Vedaldi (2015) in its L1 form."""

    weight: float

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.TOTAL_VARIATION)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * total_variation(pixels)


@dataclass(frozen=True, slots=True)
class LaplacianLoss:
    """Mean squared difference of the Laplacians of two smoothed pictures on the 0..255 scale: keeps contours.

    Li et al. 2017, "Laplacian-steered neural style transfer", section 4, with a mean for the sum.
    """

    weight: float
    target: Tensor
    """(1, 3, h, w), the `laplacian` of the content picture."""

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.LAPLACIAN)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * functional.mse_loss(laplacian(pixels), self.target)


@dataclass(frozen=True, slots=True)
class TemporalLoss:
    """Mean squared difference from a reference picture on the 0..255 scale, where it is known.

    Ruder, Dosovitskiy & Brox 2016, "Artistic style transfer for videos", equation 7: the reference is the previous
    result, warped to this frame; it is not known where something was hidden in the previous frame.
    """

    weight: float
    reference: Tensor
    """(1, 3, H, W) in [0, 1]."""
    known: Tensor | None
    """(1, 1, H, W) in [0, 1], or None for everywhere."""

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.TEMPORAL)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        squares = (255 * (pixels - self.reference)).square()
        return self.weight * (squares if self.known is None else self.known * squares).mean()


def gram_matrix(features: Tensor) -> Tensor:
    """Return the Gram matrix F F^T / (C H W) of features (1, C, H, W): (C, C), the style statistic (equation 3)."""
    return Gram().gather(features, whole_region(features), WHOLE)


def whole_region(features: Tensor) -> Region:
    """Return the region of all of these features (1, C, H, W)."""
    return Region(None, features.shape[2] * features.shape[3])


def total_variation(pixels: Tensor) -> Tensor:
    """Return the sum of absolute differences of neighbouring pixels, on the 0..255 scale, of (1, 3, H, W) in [0, 1]."""
    rows = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum()
    columns = (pixels[:, :, :, 1:] - pixels[:, :, :, :-1]).abs().sum()
    return 255 * (rows + columns)


def laplacian(pixels: Tensor) -> Tensor:
    """Return the Laplacian, on the 0..255 scale, of pixels (1, 3, H, W) averaged in blocks of four by four."""
    small = functional.avg_pool2d(255 * pixels, _LAPLACIAN_POOL, ceil_mode=True)
    padded = functional.pad(small, (1, 1, 1, 1), mode="replicate")
    neighbours: Tensor = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return neighbours - 4 * small


class _TraceOfRoot(torch.autograd.Function):
    """tr((R S R)^1/2) of a covariance S and a fixed symmetric root R; its slope is R (R S R)^-1/2 R / 2."""

    @staticmethod
    def forward(ctx: FunctionCtx, covariance: Tensor, root: Tensor) -> Tensor:
        # In double precision: the inverse root of a small eigenvalue magnifies its error.
        root = root.double()
        values, vectors = torch.linalg.eigh(root @ covariance.double() @ root)
        roots = values.clamp(min=1e-12 * values[-1].clamp(min=1e-30)).sqrt()
        turned = root @ vectors
        ctx.save_for_backward(((turned / roots) @ turned.T / 2).to(covariance.dtype))
        total: Tensor = roots.sum().to(covariance.dtype)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        slope_of_loss: Tensor = gradients[0] * slope
        return slope_of_loss, None


def _added(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def _covariance(moments: Tensor) -> Tensor:
    mean = moments[-1]
    covariance = moments[:-1] - torch.outer(mean, mean)
    ridge = _RIDGE * covariance.diagonal().mean().clamp(min=_RIDGE)
    return covariance + ridge.detach() * torch.eye(len(mean), device=mean.device)


def _vectors(features: Tensor) -> Tensor:
    # (HW, C) is how channels-last features lie in memory: no copy.
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _weights(region: Region, window: Window) -> Tensor | None:
    """Return how much each vector of a window counts, (n, 1), or None where all count alike."""
    return None if region.mask is None else _part(region.mask, window).reshape(-1, 1)


def _weighted(vectors: Tensor, weights: Tensor | None) -> Tensor:
    return vectors if weights is None else vectors * weights


def _sorted(values: Tensor) -> Tensor:
    return values.contiguous().sort(dim=1).values


def _quantiles(ordered: Tensor, count: int) -> Tensor:
    """Return `count` evenly spaced values out of each row of sorted values (K, N), interpolated: (K, count)."""
    if ordered.shape[1] == count:
        return ordered
    return functional.interpolate(ordered[None], count, mode="linear", align_corners=count > 1)[0]


def _part(mask: Tensor, window: Window) -> Tensor:
    rows, columns = window
    return mask[..., rows, columns]
