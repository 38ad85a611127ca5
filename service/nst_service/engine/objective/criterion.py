"""The objective: losses on features and on pixels, composed into one criterion.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), equations 1 to 7, in the
scaling of neural-style (Johnson, 2015), where every term is a mean:

    J(x) = content_weight * sum of ContentLoss + style_weight * sum of StyleLoss + tv_weight * total variation + ...
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from nst_service.engine.network.layers import Window
from nst_service.engine.network.vgg import Visits
from nst_service.engine.objective.evaluation import Evaluation, Values
from nst_service.engine.objective.extractor import Extractor
from nst_service.engine.objective.losses import FeatureLoss, PixelLoss, Term

_WeightedTerm = tuple[Term, Tensor]
"""A term and its weighted value, a scalar."""


class Criterion:
    """The sum of several losses over one network."""

    def __init__(
        self,
        extractor: Extractor,
        feature_losses: Sequence[FeatureLoss],
        pixel_losses: Sequence[PixelLoss] = (),
        compose: Callable[[Tensor], Tensor] | None = None,
    ):
        """Compose losses.

        Args:
            extractor: computes the features.
            feature_losses: losses on features.
            pixel_losses: losses on the picture itself.
            compose: makes the picture that the network sees out of the pixels; differentiable.
        """
        self._extractor = extractor
        self._feature_losses = tuple(feature_losses)
        self._pixel_losses = tuple(pixel_losses)
        self._compose = compose
        self._layers = sorted({loss.term.layer for loss in feature_losses})

    @property
    def needs_host_sync(self) -> bool:
        """Whether the host must wait for the device in an evaluation."""
        return self._extractor.is_tiled or any(loss.needs_host_sync for loss in self._feature_losses)

    def __call__(self, pixels: Tensor) -> Evaluation:
        """Evaluate the objective and its gradient at pixels (1, 3, H, W)."""
        pixels = pixels.detach().requires_grad_()
        picture = self._compose(pixels) if self._compose else pixels
        if self._extractor.is_tiled and self._layers:
            weighted_terms, gradient = self._evaluate_tiles(picture, pixels)
        else:
            weighted_terms, gradient = self._evaluate_whole(picture, pixels)
        values = _values_by_term(weighted_terms)
        return Evaluation(
            pixels=pixels.detach(),
            gradient=gradient.contiguous(),
            terms=tuple(values),
            values=Values(torch.stack(list(values.values()))),
        )

    def _evaluate_whole(self, picture: Tensor, pixels: Tensor) -> tuple[list[_WeightedTerm], Tensor]:
        """Return the terms of a picture and the gradient with respect to the pixels, in one backward pass."""
        terms: list[_WeightedTerm] = []
        for visits in self._extractor.visit_features(picture, self._layers, self._gather) if self._layers else ():
            for loss, partials in zip(self._feature_losses, self._partials_by_loss(visits), strict=True):
                terms.append((loss.term, loss.value(loss.combine(partials))))
        terms += [(loss.term, loss.value(picture)) for loss in self._pixel_losses]
        (gradient,) = torch.autograd.grad(_total(terms), pixels)
        return terms, gradient

    def _evaluate_tiles(self, picture: Tensor, pixels: Tensor) -> tuple[list[_WeightedTerm], Tensor]:
        """Return the terms of a picture and the gradient with respect to the pixels, tile by tile.

        The statistics of the whole picture are gathered first. Their gradients are then passed on to each tile.
        """
        seen = picture.detach()
        with torch.no_grad():
            all_visits = self._extractor.visit_features(seen, self._layers, self._gather)
            partials_by_tile = [self._partials_by_loss(visits) for visits in all_visits]
        terms: list[_WeightedTerm] = []
        # Those of each loss with respect to its partial statistics, in their order.
        gradients: list[Iterator[Tensor]] = []
        for loss, tiles in zip(self._feature_losses, zip(*partials_by_tile, strict=True), strict=True):
            leaves = [partial.requires_grad_() for partials in tiles for partial in partials]
            value = loss.value(loss.combine(leaves))
            gradients.append(iter(torch.autograd.grad(value, leaves)))
            terms.append((loss.term, value))
        seen.requires_grad_()
        gradient = torch.zeros_like(seen)
        for visits in self._extractor.visit_features(seen, self._layers, self._gather):
            products = [
                (next(grad_partials) * partial).sum()
                for grad_partials, partials in zip(gradients, self._partials_by_loss(visits), strict=True)
                for partial in partials
            ]
            gradient += torch.autograd.grad(torch.stack(products).sum(), seen)[0]
        if self._pixel_losses:
            pixel_terms = [(loss.term, loss.value(seen)) for loss in self._pixel_losses]
            gradient += torch.autograd.grad(_total(pixel_terms), seen)[0]
            terms += pixel_terms
        if picture is not pixels:
            (gradient,) = torch.autograd.grad(picture, pixels, gradient)
        return terms, gradient

    def _gather(self, layer: str, features: Tensor, window: Window) -> list[Tensor]:
        """Return the partial statistic of each loss on a layer."""
        return [loss.gather(features, window) for loss in self._feature_losses if loss.term.layer == layer]

    def _partials_by_loss(self, visits: Visits) -> list[Sequence[Tensor]]:
        """Return the partial statistics of each loss, window by window."""
        by_layer = {layer: zip(*filter(len, windows), strict=True) for layer, windows in visits.items()}
        return [next(by_layer[loss.term.layer]) for loss in self._feature_losses]


def _total(terms: Sequence[_WeightedTerm]) -> Tensor:
    return torch.stack([value for _, value in terms]).sum()


def _values_by_term(terms: Sequence[_WeightedTerm]) -> dict[Term, Tensor]:
    """Return the value of each term; those of one name are added up: a style loss has one for each region."""
    by_term: dict[Term, list[Tensor]] = defaultdict(list)
    for term, value in terms:
        by_term[term].append(value.detach())
    return {term: values[0] if len(values) == 1 else torch.stack(values).sum() for term, values in by_term.items()}
