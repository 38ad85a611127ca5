"""The losses, each one weighted term of the objective.

A loss on features first gathers a partial statistic in each window of the features. It then combines them to the
statistic of the whole picture, and its value depends on nothing else. So the same loss works on a picture as a whole
and tile by tile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.nn import functional

from nst_service.engine.network.layers import Window
from nst_service.engine.objective.statistics import Region, StyleStatistic, summed

_LAPLACIAN_POOL = 4
"""Edge in pixels of the blocks that are averaged before the Laplacian is taken."""


class LossKind(StrEnum):
    """Kinds of losses."""

    CONTENT = "content"
    STYLE = "style"
    TOTAL_VARIATION = "total_variation"
    LAPLACIAN = "laplacian"
    TEMPORAL = "temporal"


class Term(NamedTuple):
    """The identity of one term of the objective."""

    kind: LossKind
    layer: str = ""
    """The layer whose features the loss compares; empty for losses on pixels."""


class FeatureLoss(Protocol):
    """A loss on the features of one layer."""

    @property
    def needs_host_sync(self) -> bool:
        """Whether the host must wait for numbers of the device to compute the loss."""

    @property
    def term(self) -> Term:
        """The identity of the term."""

    def gather(self, features: Tensor, window: Window) -> Tensor:
        """Return the partial statistic that the loss needs of the features (1, C, h, w) of a window."""

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole picture from the partial ones."""

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar, from the statistic of the whole picture."""


class PixelLoss(Protocol):
    """A loss on the picture itself."""

    @property
    def term(self) -> Term:
        """The identity of the term."""

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar.

        Args:
            pixels: the picture that the network sees, (1, 3, H, W) in [0, 1]: `Canvas.compose` of the pixels that the
                optimiser changes.
        """


@dataclass(frozen=True, slots=True)
class ContentLoss:
    """Mean squared difference of features at one layer (Gatys, Ecker & Bethge 2016, equation 1)."""

    layer: str
    weight: float
    target: Tensor
    """Features of the content picture, (1, C, h, w)."""

    @property
    def needs_host_sync(self) -> bool:
        """Whether the host must wait for numbers of the device to compute the loss: no."""
        return False

    @property
    def term(self) -> Term:
        """The identity of the term."""
        return Term(LossKind.CONTENT, self.layer)

    def gather(self, features: Tensor, window: Window) -> Tensor:
        """Return the sum of squared differences in the window over the number of all features, a scalar."""
        rows, columns = window
        target = self.target[..., rows, columns].float()
        return functional.mse_loss(features.float(), target) * (target.numel() / self.target.numel())

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the mean squared difference, which is the sum of the partial ones."""
        return summed(partials)

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * statistic


class StyleLoss:
    """The distance of a statistic of the features at one layer to that of the style."""

    def __init__(self, layer: str, weight: float, statistic: StyleStatistic, target: Tensor, region: Region):
        """Make the loss.

        Args:
            layer: layer whose features are compared.
            weight: factor on the distance.
            statistic: statistic of the features that is compared.
            target: statistic of the style.
            region: region of the result that the style applies to.
        """
        self.term = Term(LossKind.STYLE, layer)
        self.needs_host_sync = statistic.needs_host_sync
        self._weight = weight
        self._statistic = statistic
        self._region = region
        self._distance = statistic.distance_to(target)

    def gather(self, features: Tensor, window: Window) -> Tensor:
        """Return the partial statistic of the window."""
        return self._statistic.gather(features, self._region, window)

    def combine(self, partials: Sequence[Tensor]) -> Tensor:
        """Return the statistic of the whole picture from the partial ones."""
        return self._statistic.combine(partials)

    def value(self, statistic: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self._weight * self._distance(statistic)


@dataclass(frozen=True, slots=True)
class TotalVariationLoss:
    """Total variation of the picture, the denoising prior of Mahendran & Vedaldi (2015) in its L1 form."""

    weight: float

    @property
    def term(self) -> Term:
        """The identity of the term."""
        return Term(LossKind.TOTAL_VARIATION)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * total_variation(pixels)


@dataclass(frozen=True, slots=True)
class LaplacianLoss:
    """Mean squared difference of the Laplacians of two smoothed pictures on the 0..255 scale, which keeps contours.

    Li et al. 2017, "Laplacian-steered neural style transfer", section 4, with the mean instead of the sum.
    """

    weight: float
    target: Tensor
    """The `laplacian` of the content picture, (1, 3, h, w)."""

    @property
    def term(self) -> Term:
        """The identity of the term."""
        return Term(LossKind.LAPLACIAN)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * functional.mse_loss(laplacian(pixels), self.target)


@dataclass(frozen=True, slots=True)
class TemporalLoss:
    """Mean squared difference from a reference picture on the 0..255 scale, where the reference is known.

    Ruder, Dosovitskiy & Brox 2016, "Artistic style transfer for videos", equation 7: the reference is the previous
    result, warped to this frame. It is unknown where the previous frame hid what this one shows.
    """

    weight: float
    reference: Tensor
    """Pixels of the reference picture, (1, 3, H, W) in [0, 1]."""
    known: Tensor | None
    """Weight of each pixel of the reference, (1, 1, H, W) in [0, 1], or None where all of it is known."""

    @property
    def term(self) -> Term:
        """The identity of the term."""
        return Term(LossKind.TEMPORAL)

    def value(self, pixels: Tensor) -> Tensor:
        """Return the weighted loss, a scalar."""
        squares = (255 * (pixels - self.reference)).square()
        return self.weight * (squares if self.known is None else self.known * squares).mean()


def total_variation(pixels: Tensor) -> Tensor:
    """Return the sum of absolute differences of neighbouring pixels, on the 0..255 scale, of (1, 3, H, W) in [0, 1]."""
    rows = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum()
    columns = (pixels[:, :, :, 1:] - pixels[:, :, :, :-1]).abs().sum()
    return 255 * (rows + columns)


def laplacian(pixels: Tensor) -> Tensor:
    """Return the Laplacian, on the 0..255 scale, of pixels (1, 3, H, W) in [0, 1], averaged in blocks of 4 x 4.

    Returns:
        (1, 3, h, w), h and w being a quarter of H and W, rounded up.
    """
    small = functional.avg_pool2d(255 * pixels, _LAPLACIAN_POOL, ceil_mode=True)
    padded = functional.pad(small, (1, 1, 1, 1), mode="replicate")
    neighbours: Tensor = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return neighbours - 4 * small
