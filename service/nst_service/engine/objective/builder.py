"""The builder of the objective: from a specification and its targets to a criterion."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL.Image import Image
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import StyleStatisticKind
from nst_service.engine.network.layers import channels_of, features_shape
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.extractor import Extractor
from nst_service.engine.objective.losses import (
    ContentLoss,
    FeatureLoss,
    LaplacianLoss,
    PixelLoss,
    StyleLoss,
    TemporalLoss,
    TotalVariationLoss,
    laplacian,
)
from nst_service.engine.objective.statistics import GramStatistic, Region, StyleStatistic
from nst_service.engine.objective.style_cache import LayerStatistics
from nst_service.engine.objective.targets import TargetComputation, Targets
from nst_service.engine.pictures.tensors import mask_to_tensor, picture_to_tensor
from nst_service.engine.spec import Style, TransferSpec


def build_canvas(spec: TransferSpec, device: torch.device) -> Canvas:
    """Return the canvas of a specification, on a device."""
    mask = None if spec.content_mask is None else mask_to_tensor(spec.content_mask).to(device)
    return Canvas(picture_to_tensor(spec.content).to(device), mask, spec.options.color)


def build_criterion(spec: TransferSpec, model: Vgg19, canvas: Canvas, tile_size: int | None = None) -> Criterion:
    """Compute the targets of a specification without a pause, and return its criterion."""
    computation = TargetComputation(spec, model, canvas, tile_size)
    for _ in computation.run():
        pass
    return compose_criterion(spec, model, canvas, computation.targets, tile_size)


def compose_criterion(
    spec: TransferSpec, model: Vgg19, canvas: Canvas, targets: Targets, tile_size: int | None = None
) -> Criterion:
    """Compose the losses of a specification; terms of weight zero are left out.

    Args:
        spec: specification of the transfer.
        model: the network.
        canvas: canvas of this specification.
        targets: targets of this specification.
        tile_size: edge of a tile in pixels, or None to take pictures as a whole.
    """
    losses = _Losses(spec, model, canvas, targets)
    with torch.no_grad():
        feature_losses = [*losses.content_losses(), *losses.style_losses()]
        pixel_losses = list(losses.pixel_losses())
    return Criterion(Extractor(model, spec.options.variant, tile_size), feature_losses, pixel_losses, canvas.compose)


class _Losses:
    """The losses of a specification."""

    def __init__(self, spec: TransferSpec, model: Vgg19, canvas: Canvas, targets: Targets):
        self._spec = spec
        self._options = spec.options
        self._device = model.device
        self._canvas = canvas
        self._targets = targets
        layers = spec.options.active_layers
        self._scales: Mapping[str, float] = (
            model.activation_scales(layers, spec.options.pooling)
            if spec.options.normalize
            else dict.fromkeys(layers, 1.0)
        )
        """The scale of the features of each layer that the losses are free of."""

    def content_losses(self) -> Iterator[FeatureLoss]:
        for layer, weight in self._options.active_content_layers.items():
            yield ContentLoss(layer, weight / self._scales[layer] ** 2, self._targets.content[layer])

    def style_losses(self) -> Iterator[FeatureLoss]:
        if not self._targets.statistics:
            return
        styles = list(zip(self._spec.styles, self._targets.styles, strict=True))
        if everywhere := [(style, statistics) for style, statistics in styles if style.mask is None]:
            yield from self._blended(everywhere, self._style_mask(None))
        for style, statistics in styles:
            if style.mask is not None:
                yield from self._blended([(style, statistics)], self._style_mask(style.mask))

    def pixel_losses(self) -> Iterator[PixelLoss]:
        options, content = self._options, self._canvas.content
        if options.tv_weight > 0:
            # A mean over the pixels in [0, 1] is free of scale.
            factor = 1 / (255 * content.numel()) if options.normalize else 1
            yield TotalVariationLoss(factor * options.tv_weight)
        if options.laplacian_weight > 0:
            yield LaplacianLoss(options.laplacian_weight, laplacian(self._canvas.compose(content)))
        if self._spec.reference is not None and options.temporal_weight > 0:
            mask = self._spec.reference_mask
            yield TemporalLoss(
                options.temporal_weight,
                picture_to_tensor(self._spec.reference).to(self._device),
                None if mask is None else mask_to_tensor(mask).to(self._device),
            )

    def _style_mask(self, mask: Image | None) -> Tensor | None:
        """Return the mask (1, 1, H, W) of what a style with this mask is compared with; None for all of the picture.

        What the content mask keeps does not count: the rest would have to make up for it, with too much contrast. Gram
        matrices count it, as in release 0.1.0, bit for bit.
        """
        masks = [mask]
        if self._options.style_loss is not StyleStatisticKind.GRAM:
            masks.append(self._spec.content_mask)
        tensors = [mask_to_tensor(given).to(self._device) for given in masks if given is not None]
        return math.prod(tensors[1:], start=tensors[0]) if tensors else None

    def _blended(self, styles: Sequence[tuple[Style, LayerStatistics]], mask: Tensor | None) -> Iterator[StyleLoss]:
        """Yield the losses of styles, each with its statistics, that are blended in one region."""
        share = sum(style.share for style, _ in styles)
        for layer, statistic in self._targets.statistics.items():
            region = self._region(layer, mask)
            if region.area > 0:
                target = statistic.blend([(statistics[layer], style.share / share) for style, statistics in styles])
                weight = share * self._options.active_style_layers[layer] * self._scale_factor(layer, statistic)
                yield StyleLoss(layer, weight, statistic, target, region)

    def _scale_factor(self, layer: str, statistic: StyleStatistic) -> float:
        """Return the factor that makes a style loss free of scale, or 1 where that is not asked for."""
        # A Gram matrix is divided by the number of channels.
        channels = channels_of(layer) if self._options.normalize and isinstance(statistic, GramStatistic) else 1
        return float(channels**2 / self._scales[layer] ** statistic.degree)

    def _region(self, layer: str, mask: Tensor | None) -> Region:
        """Return a mask at the resolution of a layer: each feature counts as much as the pixels it stands for."""
        shape = features_shape(self._spec.content.size, layer)
        if mask is None:
            return Region.whole(shape)
        small = functional.interpolate(mask, shape, mode="area")
        return Region(small, small.sum().item())
