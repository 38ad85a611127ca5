"""The objective: losses on features and on pixels, composed into one criterion.

Gatys, Ecker & Bethge, "Image Style Transfer Using Convolutional Neural Networks" (CVPR 2016), equations 1 to 7, in the
scaling of neural-style (Johnson, 2015), where every term is a mean:

    J(x) = content_weight * sum of ContentLoss + style_weight * sum of style losses + tv_weight * total variation + ...
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NewType

import torch
from torch import Tensor

from nst_service.engine.layers import Window
from nst_service.engine.losses import FeatureLoss, PixelLoss, Term
from nst_service.engine.pictures import Size
from nst_service.engine.tiles import count_tiles, tiles
from nst_service.engine.vgg import REFERENCE_VARIANT, Look, Variant, Vgg19

Values = NewType("Values", Tensor)
"""One number for each term, (n,), on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The objective at one picture."""

    pixels: Tensor
    """(1, 3, H, W) float32."""
    gradient: Tensor
    """(1, 3, H, W), the derivative of the loss by the pixels."""
    terms: tuple[Term, ...]
    values: Values
    """Every term, weighted."""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.terms),):
            raise ValueError("each term has a value")

    @property
    def value(self) -> Tensor:
        """The sum of all terms, a scalar on the device."""
        return self.values.sum()

    @property
    def is_finite(self) -> Tensor:
        """Whether the loss and its gradient are finite, a scalar on the device."""
        return self.value.isfinite() & self.gradient.isfinite().all()

    @property
    def loss(self) -> float:
        """The sum of all terms. Waits for the device."""
        return self.value.item()

    def tensors(self) -> tuple[Tensor, ...]:
        """Return its pixels, gradient and values."""
        return self.pixels, self.gradient, self.values

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Evaluation":
        """Return an evaluation of the same terms that has other pixels, gradient and values."""
        pixels, gradient, values = tensors
        return Evaluation(pixels=pixels, gradient=gradient, terms=self.terms, values=Values(values))

    def term_values(self) -> dict[Term, float]:
        """Return every term as a number. Waits for the device."""
        return dict(zip(self.terms, self.values.tolist(), strict=True))


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

    def whole(self, pixels: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features of a picture (1, 3, H, W) by layer."""
        return self._model.features(pixels, layers, self._variant)

    def gather(self, pixels: Tensor, layers: Sequence[str], look: Look) -> dict[str, list[Sequence[Tensor]]]:
        """Look at the features of a picture (1, 3, H, W) as a whole, part by part (see `Vgg19.gather`)."""
        return self._model.gather(pixels, layers, look, self._variant)

    def tiles(self, pixels: Tensor, layers: Sequence[str]) -> Iterator[dict[str, tuple[Tensor, Window]]]:
        """Yield the features of each tile of a picture by layer, each with its place in those of the whole."""
        assert self._tile is not None
        height, width = pixels.shape[-2:]
        for tile in tiles((width, height), self._tile, layers):
            rows, columns = tile.pixels
            features = self.whole(pixels[..., rows, columns], layers)
            yield {
                layer: (features[layer][(..., *tile.core_in_tile(layer))], tile.core_in_picture(layer))
                for layer in layers
            }


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
    def waits(self) -> bool:
        """Whether an evaluation makes the host wait for the device."""
        return self._extractor.is_tiled or any(loss.waits for loss in self._feature_losses)

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
        values = self._feature_values(picture) if self._layers else []
        values += [(loss.term, loss.value(picture)) for loss in self._pixel_losses]
        (gradient,) = torch.autograd.grad(torch.stack([value for _, value in values]).sum(), pixels)
        return values, gradient

    def _feature_values(self, picture: Tensor) -> list[tuple[Term, Tensor]]:
        losses = {layer: [loss for loss in self._feature_losses if loss.term.layer == layer] for layer in self._layers}

        def statistics(layer: str, features: Tensor, window: Window) -> list[Tensor]:
            return [loss.statistic(features, window) for loss in losses[layer]]

        # By layer the parts, each with a statistic for every loss.
        gathered = self._extractor.gather(picture, self._layers, statistics)
        of_losses = {layer: iter(zip(*parts, strict=True)) for layer, parts in gathered.items()}
        return [
            (loss.term, loss.value(loss.combine(next(of_losses[loss.term.layer])))) for loss in self._feature_losses
        ]

    def _evaluate_tiles(self, picture: Tensor, pixels: Tensor) -> tuple[list[tuple[Term, Tensor]], Tensor]:
        """Gather the statistics of the whole picture first, then the gradient tile by tile."""
        seen = picture.detach()
        with torch.no_grad():
            gathered = [
                [loss.statistic(*part[loss.term.layer]) for loss in self._feature_losses]
                for part in self._extractor.tiles(seen, self._layers)
            ]
        values: list[tuple[Term, Tensor]] = []
        slopes: list[list[Tensor]] = []
        for loss, column in zip(self._feature_losses, zip(*gathered, strict=True), strict=True):
            leaves = [part.requires_grad_() for part in column]
            value = loss.value(loss.combine(leaves))
            slopes.append(list(torch.autograd.grad(value, leaves)))
            values.append((loss.term, value))
        seen.requires_grad_()
        gradient = torch.zeros_like(seen)
        for index, part in enumerate(self._extractor.tiles(seen, self._layers)):
            local = torch.stack(
                [
                    (slopes[number][index] * loss.statistic(*part[loss.term.layer])).sum()
                    for number, loss in enumerate(self._feature_losses)
                ]
            ).sum()
            gradient += torch.autograd.grad(local, seen)[0]
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
