"""The statistics of features that style losses compare.

A statistic is gathered window by window. The partial statistics are combined to that of the whole picture, those of
several styles are blended to one target, and a distance compares a statistic to a target.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from nst_service.engine.arena import empty_features
from nst_service.engine.choices import StyleStatisticKind
from nst_service.engine.network.layers import Window
from nst_service.engine.sizes import Shape

SLICED_DIRECTIONS = 32
"""Number of directions that a sliced Wasserstein loss projects features on."""

_NEWTON_SCHULZ_STEPS = 40
"""Steps after which the iteration has converged. Each multiplies the smallest eigenvalue by up to 9/4, and the ridge
keeps it above 1e-12 of the largest in products of two covariances with up to 512 channels."""

_RIDGE = 1e-3
"""Addend to the diagonal of a covariance, relative to the mean of the diagonal.

Without it, the covariance of features that never vary has no inverse."""


class Region(NamedTuple):
    """The part of the picture that a style applies to, at the resolution of one layer."""

    mask: Tensor | None
    """Weight of each feature, (1, 1, h, w) in [0, 1], or None for the whole picture."""
    area: float
    """Sum of the mask, or h * w."""

    @classmethod
    def whole(cls, shape: Shape) -> "Region":
        """Return the region of all features of a layer."""
        return cls(None, shape.height * shape.width)


Distance = Callable[[Tensor], Tensor]
"""Returns how far a statistic is from its target: a scalar, 0 at the target."""


class StyleStatistic(Protocol):
    """A statistic of features that does not depend on where in the picture they are."""

    degree: int
    """Degree of homogeneity: features times a factor give the distance times the factor to the power of this degree."""
    needs_host_sync: bool
    """Whether the host must wait for numbers of the device to compute the distance."""

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the partial statistic of a region that comes from the features (1, C, h, w) of a window."""

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole from the partial ones."""

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the target of several styles from the statistic and share of each; the shares sum to one."""

    def distance_to(self, target: Tensor) -> Distance:
        """Return the distance of statistics to a target."""


class _MeanStatistic:
    """A statistic that is a mean over the features of a region."""

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the sum: each partial statistic is divided by the area of the whole region already."""
        return summed(partials)

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the weighted mean, which is the statistic of the mixture."""
        return summed([share * statistic for statistic, share in statistics])


class GramStatistic(_MeanStatistic):
    """The Gram matrix, compared by mean squared difference (Gatys, Ecker & Bethge 2016, equations 3 and 4).

    With a mask it is a guided one (Gatys et al. 2017, "Controlling perceptual factors", section 4).
    """

    degree = 4
    needs_host_sync = False

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the partial Gram matrix (C, C), divided by the area of the region times C."""
        products: Tensor = _SummedOuterProducts.apply(features, _weights(region, window))
        return products / (region.area * features.shape[1])

    def distance_to(self, target: Tensor) -> Distance:
        """Return the mean squared difference."""
        return lambda gram: functional.mse_loss(gram, target)


class MomentsStatistic(_MeanStatistic):
    """The mean and covariance of features, compared as those of two Gaussians.

    The distance is the squared Wasserstein-2 distance over the number of channels (Olkin & Pukelsheim 1982):

        |m - n|^2 + tr(S) + tr(T) - 2 tr((T^1/2 S T^1/2)^1/2)

    Styles are blended as a mixture, whose covariance contains the differences of their palettes. The Wasserstein
    barycentre of the Gaussians would average them away: blends would be greyer than their styles.
    """

    degree = 2
    needs_host_sync = False

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the partial means of v v^T and of v over the vectors v, one above the other: (C + 1, C)."""
        weights = _weights(region, window)
        products: Tensor = _SummedOuterProducts.apply(features, weights)
        sums = _weighted(_vectors(features).float(), weights).sum(0, keepdim=True)
        return torch.cat([products, sums]) / region.area

    def distance_to(self, target: Tensor) -> Distance:
        """Return the squared Wasserstein-2 distance over the number of channels."""
        target_mean, target_covariance = target[-1], _covariance(target)
        values, vectors = torch.linalg.eigh(target_covariance)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        target_trace = target_covariance.trace()

        def distance(moments: Tensor) -> Tensor:
            mean, covariance = moments[-1], _covariance(moments)
            fidelity: Tensor = _TraceOfSquareRoot.apply(covariance, root)
            spread = (covariance.trace() + target_trace - 2 * fidelity).clamp(min=0)
            return ((mean - target_mean).square().sum() + spread) / len(mean)

        return distance


class SlicedProjectionsStatistic:
    """The distribution of features along several directions.

    Distributions are compared by the mean squared difference of sorted projections (Heitz et al. 2021, "A sliced
    Wasserstein loss for neural texture synthesis", equation 6). With a mask, features count where it is above half of
    its maximum, which is less than one where a narrow region ends up between the features of a deep layer.
    """

    degree = 2
    needs_host_sync = True

    def __init__(self, directions: Tensor):
        """Take directions (C, K), orthonormal."""
        self._directions = directions

    def gather(self, features: Tensor, region: Region, window: Window) -> Tensor:
        """Return the projections (K, n) of the n features of the window."""
        vectors = _vectors(features).float()
        if region.mask is not None:
            vectors = vectors[_cropped(region.mask, window).reshape(-1) > region.mask.max() / 2]
        return (vectors @ self._directions).T

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the projections of all windows side by side."""
        return torch.cat(list(partials), 1)

    def blend(self, statistics: Sequence[tuple[Tensor, float]]) -> Tensor:
        """Return the sorted projections of the Wasserstein barycentre: the weighted mean of the quantiles."""
        count = max(values.shape[1] for values, _ in statistics)
        return torch.stack([share * _quantiles(_sorted(values), count) for values, share in statistics]).sum(0)

    def distance_to(self, target: Tensor) -> Distance:
        """Return the mean squared difference of the quantiles."""
        return lambda values: functional.mse_loss(_sorted(values), _quantiles(target, values.shape[1]))


class _SummedOuterProducts(torch.autograd.Function):
    """The sum of w v v^T over the vectors v of features (1, C, h, w), with weights (h * w, 1): (C, C) float32.

    Its backward pass takes one matrix product, where that of autograd takes two.
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
        (grad_products,) = gradients
        symmetric = (grad_products + grad_products.T).to(features.dtype)
        if features.device.type == "cpu":
            grad_features = empty_features(*features.shape[1:])
            grad_vectors = torch.mm(_vectors(features), symmetric, out=_vectors(grad_features))
        else:
            grad_vectors = _vectors(features) @ symmetric
            grad_features = grad_vectors.view(1, *features.shape[2:], -1).permute(0, 3, 1, 2)
        if weights is not None:
            grad_vectors *= weights
        return grad_features, None


class _TraceOfSquareRoot(torch.autograd.Function):
    """tr((R S R)^1/2) of a covariance S and a fixed symmetric root R; its derivative is R (R S R)^-1/2 R / 2."""

    @staticmethod
    def forward(ctx: FunctionCtx, covariance: Tensor, root: Tensor) -> Tensor:
        # In double precision: the inverse root of a small eigenvalue magnifies its error.
        root = root.double()
        product = root @ covariance.double() @ root
        rooted = _rooted_by_eigenvalues if root.device.type == "cpu" else _rooted_by_products
        trace, derivative = rooted(product, root)
        ctx.save_for_backward(derivative.to(covariance.dtype))
        return trace.to(covariance.dtype)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (derivative,) = ctx.saved_tensors  # type: ignore[attr-defined]
        grad_covariance: Tensor = gradients[0] * derivative
        return grad_covariance, None


def _rooted_by_eigenvalues(product: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return the trace of the square root of a product R S R, and R (R S R)^-1/2 R / 2, of matrices (C, C)."""
    values, vectors = torch.linalg.eigh(product)
    roots = values.clamp(min=1e-12 * values[-1].clamp(min=1e-30)).sqrt()
    rotated = root @ vectors
    return roots.sum(), (rotated / roots) @ rotated.T / 2


def _rooted_by_products(product: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_rooted_by_eigenvalues` returns, without the host: eigenvalues make it wait for a GPU.

    The coupled Newton-Schulz iteration (Higham 2008, "Functions of matrices", equation 6.35) takes matrix products
    only, and always as many.
    """
    norm = product.norm().clamp(min=1e-30)
    identity = torch.eye(len(product), dtype=product.dtype, device=product.device)
    rooted, inverse = product / norm, identity
    for _ in range(_NEWTON_SCHULZ_STEPS):
        step = 1.5 * identity - 0.5 * inverse @ rooted
        rooted, inverse = rooted @ step, step @ inverse
    return rooted.trace() * norm.sqrt(), root @ inverse @ root / (2 * norm.sqrt())


def make_statistic(kind: StyleStatisticKind, channels: int, *, seed: int, device: torch.device) -> StyleStatistic:
    """Return the statistic of a kind for a layer.

    Args:
        kind: kind of the statistic.
        channels: number of channels of the layer.
        seed: seed of the directions of a sliced Wasserstein loss.
        device: device of the features.
    """
    match kind:
        case StyleStatisticKind.GRAM:
            return GramStatistic()
        case StyleStatisticKind.MOMENTS:
            return MomentsStatistic()
        case StyleStatisticKind.SLICED_WASSERSTEIN:
            return SlicedProjectionsStatistic(_random_directions(channels, seed).to(device))


def _random_directions(channels: int, seed: int) -> Tensor:
    """Return orthonormal directions (channels, SLICED_DIRECTIONS) on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
    directions: Tensor = basis[:, :SLICED_DIRECTIONS].contiguous()
    return directions


def summed(tensors: Sequence[Tensor]) -> Tensor:
    """Return the elementwise sum of tensors of one shape."""
    return torch.stack(list(tensors)).sum(0)


def _covariance(moments: Tensor) -> Tensor:
    """Return the covariance (C, C), with a ridge, of moments (C + 1, C) as `MomentsStatistic` gathers them."""
    mean = moments[-1]
    covariance = moments[:-1] - torch.outer(mean, mean)
    ridge = _RIDGE * covariance.diagonal().mean().clamp(min=_RIDGE)
    return covariance + ridge.detach() * torch.eye(len(mean), device=mean.device)


def _vectors(features: Tensor) -> Tensor:
    """Return features (1, C, h, w) as vectors (h * w, C)."""
    # This is how channels-last features lie in memory: no copy.
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


def _weights(region: Region, window: Window) -> Tensor | None:
    """Return the weight of each vector of a window, (n, 1), or None where all count alike."""
    return None if region.mask is None else _cropped(region.mask, window).reshape(-1, 1)


def _weighted(vectors: Tensor, weights: Tensor | None) -> Tensor:
    return vectors if weights is None else vectors * weights


def _sorted(values: Tensor) -> Tensor:
    return values.contiguous().sort(dim=1).values


def _quantiles(ordered: Tensor, count: int) -> Tensor:
    """Return `count` evenly spaced values out of each row of sorted values (K, N), interpolated: (K, count)."""
    if ordered.shape[1] == count:
        return ordered
    return functional.interpolate(ordered[None], count, mode="linear", align_corners=count > 1)[0]


def _cropped(mask: Tensor, window: Window) -> Tensor:
    rows, columns = window
    return mask[..., rows, columns]
