"""The objective: losses on features and on pixels, composed into one criterion.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), equations 1 to 7, in the
scaling of neural-style (Johnson, 2015), where every term is a mean:

    J(x) = content_weight * sum of ContentLoss + style_weight * sum of style losses + tv_weight * total variation + ...
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from nst_service.engine.network.layers import Window
from nst_service.engine.network.plan import REFERENCE_VARIANT, Variant
from nst_service.engine.network.tiles import Tile, count_tiles, tiles
from nst_service.engine.network.vgg import FeatureVisitor, Vgg19, Visits
from nst_service.engine.objective.evaluation import Evaluation, Values
from nst_service.engine.objective.losses import FeatureLoss, PixelLoss, Term
from nst_service.engine.sizes import Size


class Extractor:
    """Computes features of a picture, whole or tile by tile."""

    def __init__(self, model: Vgg19, variant: Variant = REFERENCE_VARIANT, tile: int | None = None):
        """Make an extractor.

        Args:
            model: the network.
            variant: how its weights are applied.
            tile: edge of the core of a tile in pixels, or None to take pictures as a whole.
        """
        self._model = model
        self._variant = variant
        self._tile = tile

    @property
    def is_tiled(self) -> bool:
        """Whether pictures are taken tile by tile."""
        return self._tile is not None

    def count(self, size: Size) -> int:
        """Return how many parts a picture has."""
        return 1 if self._tile is None else count_tiles(size, self._tile)

    def visit_features(self, pixels: Tensor, layers: Sequence[str], visit: FeatureVisitor) -> Iterator[Visits]:
        """Visit the features of a picture (1, 3, H, W), tile by tile or as a whole.

        Args:
            pixels: of the picture.
            layers: whose features are visited.
            visit: called with features and their window in those of the whole picture (see `Vgg19.visit_features`);
                each of them comes once.

        Yields:
            What `visit` returned for each tile, by layer, part by part.
        """
        if self._tile is None:
            yield self._model.visit_features(pixels, layers, visit, self._variant)
            return
        for tile in tiles(Size.of(pixels), self._tile, layers):
            rows, columns = tile.pixels
            visit_core = functools.partial(_visit_core, visit, tile)
            yield self._model.visit_features(pixels[..., rows, columns], layers, visit_core, self._variant)


def _visit_core(visit: FeatureVisitor, tile: Tile, layer: str, features: Tensor, window: Window) -> Sequence[Tensor]:
    first = window.rows.start or 0
    core = tile.core_in_part(layer, range(first, first + features.shape[2]))
    if core is None:
        return ()
    inside, in_picture = core
    return visit(layer, features[(..., *inside)], in_picture)


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
            feature_losses: see `losses`.
            pixel_losses: see `losses`.
            compose: makes the picture that the network sees out of the pixels; differentiable.
        """
        self._extractor = extractor
        self._feature_losses = tuple(feature_losses)
        self._pixel_losses = tuple(pixel_losses)
        self._compose = compose
        self._layers = sorted({loss.term.layer for loss in feature_losses})

    @property
    def needs_host_sync(self) -> bool:
        """Whether an evaluation makes the host wait for the device."""
        return self._extractor.is_tiled or any(loss.needs_host_sync for loss in self._feature_losses)

    def __call__(self, pixels: Tensor) -> Evaluation:
        """Evaluate the objective and its gradient at pixels (1, 3, H, W)."""
        pixels = pixels.detach().requires_grad_()
        picture = self._compose(pixels) if self._compose else pixels
        if self._extractor.is_tiled and self._layers:
            values, gradient = self._evaluate_tiles(picture, pixels)
        else:
            values, gradient = self._evaluate_whole(picture, pixels)
        terms = _summed(values)
        return Evaluation(
            pixels=pixels.detach(),
            gradient=gradient.contiguous(),
            terms=tuple(terms),
            values=Values(torch.stack(list(terms.values()))),
        )

    def _evaluate_whole(self, picture: Tensor, pixels: Tensor) -> tuple[list[tuple[Term, Tensor]], Tensor]:
        values: list[tuple[Term, Tensor]] = []
        for gathered in self._extractor.visit_features(picture, self._layers, self._statistics) if self._layers else ():
            parts = self._by_loss(gathered)
            values += [
                (loss.term, loss.value(loss.combine(part)))
                for loss, part in zip(self._feature_losses, parts, strict=True)
            ]
        values += [(loss.term, loss.value(picture)) for loss in self._pixel_losses]
        (gradient,) = torch.autograd.grad(torch.stack([value for _, value in values]).sum(), pixels)
        return values, gradient

    def _statistics(self, layer: str, features: Tensor, window: Window) -> list[Tensor]:
        return [loss.gather(features, window) for loss in self._feature_losses if loss.term.layer == layer]

    def _by_loss(self, gathered: Mapping[str, Sequence[Sequence[Tensor]]]) -> list[Sequence[Tensor]]:
        """Return the statistics of each loss, part by part, of those that were gathered by layer."""
        of_layers = {layer: zip(*filter(len, parts), strict=True) for layer, parts in gathered.items()}
        return [next(of_layers[loss.term.layer]) for loss in self._feature_losses]

    def _evaluate_tiles(self, picture: Tensor, pixels: Tensor) -> tuple[list[tuple[Term, Tensor]], Tensor]:
        """Gather the statistics of the whole picture first, then the gradient tile by tile."""
        seen = picture.detach()
        with torch.no_grad():
            by_tile = [self._by_loss(it) for it in self._extractor.visit_features(seen, self._layers, self._statistics)]
        values: list[tuple[Term, Tensor]] = []
        slopes: list[Iterator[Tensor]] = []
        for loss, of_tiles in zip(self._feature_losses, zip(*by_tile, strict=True), strict=True):
            leaves = [part.requires_grad_() for parts in of_tiles for part in parts]
            value = loss.value(loss.combine(leaves))
            slopes.append(iter(torch.autograd.grad(value, leaves)))
            values.append((loss.term, value))
        seen.requires_grad_()
        gradient = torch.zeros_like(seen)
        for gathered in self._extractor.visit_features(seen, self._layers, self._statistics):
            local = [
                (next(slope) * part).sum()
                for slope, parts in zip(slopes, self._by_loss(gathered), strict=True)
                for part in parts
            ]
            gradient += torch.autograd.grad(torch.stack(local).sum(), seen)[0]
        if self._pixel_losses:
            pixel_values = [(loss.term, loss.value(seen)) for loss in self._pixel_losses]
            gradient += torch.autograd.grad(torch.stack([value for _, value in pixel_values]).sum(), seen)[0]
            values += pixel_values
        if picture is not pixels:
            (gradient,) = torch.autograd.grad(picture, pixels, gradient)
        return values, gradient


def _summed(values: Sequence[tuple[Term, Tensor]]) -> dict[Term, Tensor]:
    """Add up the terms of the same name: a style loss has one for each region."""
    terms: dict[Term, list[Tensor]] = defaultdict(list)
    for term, value in values:
        terms[term].append(value.detach())
    return {term: parts[0] if len(parts) == 1 else torch.stack(parts).sum() for term, parts in terms.items()}
