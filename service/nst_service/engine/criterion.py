"""The objective: losses on features and on pixels, composed into one criterion.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), equations 1 to 7, in the
scaling of neural-style (Johnson, 2015), where every term is a mean:

    J(x) = content_weight * sum of ContentLoss + style_weight * sum of StyleLoss + tv_weight * total variation
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.vgg import Vgg19


class LossKind(StrEnum):
    """The losses by name."""

    CONTENT = "content"
    STYLE = "style"
    TOTAL_VARIATION = "total_variation"


class Term(NamedTuple):
    """Names one term of the objective."""

    kind: LossKind
    layer: str = ""
    """Empty for losses on pixels."""


class Loss(Protocol):
    """One weighted term of the objective."""

    @property
    def term(self) -> Term:
        """The name of the term."""

    def __call__(self, pixels: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss, a scalar, of pixels (1, 3, H, W) with these features by layer."""


def gram_matrix(features: Tensor) -> Tensor:
    """Return the Gram matrix F F^T / (C H W) of features (1, C, H, W): (C, C), the style statistic (equation 3)."""
    channels = features.shape[1]
    # (HW, C) is how channels-last features lie in memory: no copy.
    vectors = features.permute(0, 2, 3, 1).reshape(-1, channels)
    return vectors.T @ vectors / features.numel()


def total_variation(pixels: Tensor) -> Tensor:
    """Return the sum of absolute differences of neighbouring pixels, on the 0..255 scale, of (1, 3, H, W) in [0, 1]."""
    rows = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum()
    columns = (pixels[:, :, :, 1:] - pixels[:, :, :, :-1]).abs().sum()
    return 255 * (rows + columns)


@dataclass(frozen=True, slots=True)
class ContentLoss:
    """Mean squared difference of features at one layer (equation 1)."""

    layer: str
    weight: float
    target: Tensor
    """(1, C, h, w), the features of the content picture."""

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.CONTENT, self.layer)

    def __call__(self, pixels: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss, a scalar."""
        del pixels
        return self.weight * functional.mse_loss(features[self.layer], self.target)


@dataclass(frozen=True, slots=True)
class StyleLoss:
    """Mean squared difference of Gram matrices at one layer (equation 4)."""

    layer: str
    weight: float
    target: Tensor
    """(C, C), the Gram matrix of the style, or the weighted mean of those of several styles."""

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.STYLE, self.layer)

    def __call__(self, pixels: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss, a scalar."""
        del pixels
        return self.weight * functional.mse_loss(gram_matrix(features[self.layer]), self.target)


@dataclass(frozen=True, slots=True)
class TotalVariationLoss:
    """Smoothness of the picture, the denoising prior of Mahendran & Vedaldi (2015) in its L1 form."""

    weight: float

    @property
    def term(self) -> Term:
        """The name of the term."""
        return Term(LossKind.TOTAL_VARIATION)

    def __call__(self, pixels: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss, a scalar."""
        del features
        return self.weight * total_variation(pixels)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The objective at one picture."""

    pixels: Tensor
    """(1, 3, H, W) float32, not clamped."""
    loss: float
    """The sum of all terms."""
    terms: Mapping[Term, Tensor]
    """Every term, weighted, a scalar on the device."""
    gradient: Tensor
    """(1, 3, H, W), the derivative of the loss by the pixels."""

    def term_values(self) -> dict[Term, float]:
        """Return every term as a number. Waits for the device."""
        return {term: value.item() for term, value in self.terms.items()}


class Criterion:
    """The sum of several losses over one network."""

    def __init__(self, model: Vgg19, losses: Iterable[Loss]):
        self._model = model
        self._losses = tuple(losses)
        self._layers = {loss.term.layer for loss in self._losses if loss.term.layer}

    def __call__(self, pixels: Tensor) -> Evaluation:
        """Evaluate the objective and its gradient at pixels (1, 3, H, W)."""
        pixels = pixels.detach().requires_grad_()
        features = self._model.features(pixels, self._layers)
        terms = {loss.term: loss(pixels, features) for loss in self._losses}
        total = torch.stack(list(terms.values())).sum()
        (gradient,) = torch.autograd.grad(total, pixels)
        return Evaluation(
            pixels=pixels.detach(),
            loss=total.item(),
            terms={term: value.detach() for term, value in terms.items()},
            gradient=gradient.contiguous(),
        )
