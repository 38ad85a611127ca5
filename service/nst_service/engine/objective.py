"""From a specification to its criterion: the targets, and the losses that lead to them."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.canvas import Canvas, ColorMode
from nst_service.engine.colors import luminance, match_colors, match_luminance
from nst_service.engine.criterion import Criterion, Extractor
from nst_service.engine.layers import KERNEL_SHAPES, conv_of, features_size
from nst_service.engine.losses import (
    WHOLE,
    ContentLoss,
    FeatureLoss,
    Gram,
    LaplacianLoss,
    Moments,
    PixelLoss,
    Region,
    SlicedProjections,
    StyleLoss,
    StyleLossName,
    StyleStatistic,
    TemporalLoss,
    TotalVariationLoss,
    laplacian,
)
from nst_service.engine.pictures import Size, mask_to_tensor
from nst_service.engine.spec import Style, TransferSpec
from nst_service.engine.vgg import Vgg19

_DIRECTIONS = 32
"""That a sliced Wasserstein loss looks from."""


def build_canvas(spec: TransferSpec, device: torch.device) -> Canvas:
    """Return how the pixels of a specification become its picture."""
    mask = None if spec.content_mask is None else mask_to_tensor(spec.content_mask).to(device)
    return Canvas(spec.content.to_tensor().to(device), mask, spec.options.color)


def build_criterion(spec: TransferSpec, model: Vgg19, canvas: Canvas, tile: int | None = None) -> Criterion:
    """Compute the targets of a specification and compose its losses; terms of weight zero are left out.

    Args:
        spec: what shall be done.
        model: the network.
        canvas: of this specification.
        tile: edge of a tile in pixels, or None to take pictures as a whole.
    """
    return _Builder(spec, model, canvas, tile).build()


class _Builder:
    def __init__(self, spec: TransferSpec, model: Vgg19, canvas: Canvas, tile: int | None):
        self._spec = spec
        self._options = spec.options
        self._model = model
        self._canvas = canvas
        self._extractor = Extractor(model, spec.options.variant, tile)
        layers = spec.options.active_layers
        self._scales: Mapping[str, float] = (
            model.activation_scales(layers, spec.options.pooling)
            if spec.options.normalize
            else dict.fromkeys(layers, 1.0)
        )

    @torch.no_grad()
    def build(self) -> Criterion:
        return Criterion(
            self._extractor,
            [*self._content_losses(), *self._style_losses()],
            list(self._pixel_losses()),
            self._canvas.compose,
        )

    def _content_losses(self) -> Iterator[FeatureLoss]:
        layers = self._options.active_content_layers
        if not layers:
            return
        # What the network shall see is the content picture as the canvas shows it.
        content = self._canvas.compose(self._canvas.content)
        features = self._joined_features(content, list(layers))
        for layer, weight in layers.items():
            yield ContentLoss(layer, weight / self._scales[layer] ** 2, features[layer])

    def _joined_features(self, picture: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features of a whole picture, computed part by part."""
        if not self._extractor.is_tiled:
            return self._extractor.whole(picture, layers)
        height, width = picture.shape[-2:]
        joined = {layer: self._empty_features((width, height), layer) for layer in layers}
        for part in self._extractor.parts(picture, layers):
            for layer, (features, (rows, columns)) in part.items():
                joined[layer][..., rows, columns] = features
        return joined

    def _empty_features(self, size: Size, layer: str) -> Tensor:
        width, height = features_size(size, layer)
        features = torch.empty(1, _channels(layer), height, width, device=self._model.device)
        return features.contiguous(memory_format=torch.channels_last)

    def _style_losses(self) -> Iterator[StyleLoss]:
        if not self._options.active_style_layers:
            return
        everywhere = [style for style in self._spec.styles if style.mask is None]
        if everywhere:
            yield from self._losses_of(everywhere, None)
        for style in self._spec.styles:
            if style.mask is not None:
                yield from self._losses_of([style], mask_to_tensor(style.mask).to(self._model.device))

    def _losses_of(self, styles: Sequence[Style], mask: Tensor | None) -> Iterator[StyleLoss]:
        """Yield the losses of styles that are blended in one region."""
        share = sum(style.share for style in styles)
        weights = self._options.active_style_layers
        statistics = {layer: self._statistic(layer) for layer in weights}
        gathered = [(self._gathered(self._style_pixels(style), statistics), style.share / share) for style in styles]
        for layer, statistic in statistics.items():
            region = self._region(layer, mask)
            if region.area > 0:
                target = statistic.blend([(by_layer[layer], part) for by_layer, part in gathered])
                weight = share * weights[layer] * self._factor(layer, statistic)
                yield StyleLoss(layer, weight, statistic, target, region)

    def _gathered(self, pixels: Tensor, statistics: Mapping[str, StyleStatistic]) -> dict[str, Tensor]:
        """Return the statistics of a whole style picture by layer."""
        height, width = pixels.shape[-2:]
        parts: dict[str, list[Tensor]] = {layer: [] for layer in statistics}
        for part in self._extractor.parts(pixels, list(statistics)):
            for layer, (features, _) in part.items():
                whole = Region(None, math.prod(features_size((width, height), layer)))
                parts[layer].append(statistics[layer].gather(features, whole, WHOLE))
        return {layer: statistic.combine(parts[layer]) for layer, statistic in statistics.items()}

    def _factor(self, layer: str, statistic: StyleStatistic) -> float:
        """Return what makes a style loss free of scale, where that is asked for."""
        # A Gram matrix is divided by the number of channels.
        channels = _channels(layer) if self._options.normalize and isinstance(statistic, Gram) else 1
        return float(channels**2 / self._scales[layer] ** statistic.degree)

    def _style_pixels(self, style: Style) -> Tensor:
        pixels = style.picture.to_tensor().to(self._model.device)
        match self._options.color:
            case ColorMode.MATCH:
                return match_colors(pixels, self._canvas.content)
            case ColorMode.LUMINANCE:
                grey = match_luminance(luminance(pixels), luminance(self._canvas.content))
                return grey.expand_as(pixels)
            case _:
                return pixels

    def _region(self, layer: str, mask: Tensor | None) -> Region:
        """Return a mask at the resolution of a layer: each feature counts as much as the pixels it stands for."""
        width, height = features_size(self._spec.content.size, layer)
        if mask is None:
            return Region(None, width * height)
        small = functional.interpolate(mask, (height, width), mode="area")
        return Region(small, small.sum().item())

    def _statistic(self, layer: str) -> StyleStatistic:
        match self._options.style_loss:
            case StyleLossName.GRAM:
                return Gram()
            case StyleLossName.MOMENTS:
                return Moments()
            case StyleLossName.SLICED_WASSERSTEIN:
                return SlicedProjections(self._directions(_channels(layer)))

    def _directions(self, channels: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._options.seed)
        basis, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
        directions: Tensor = basis[:, :_DIRECTIONS].contiguous()
        return directions.to(self._model.device)

    def _pixel_losses(self) -> Iterator[PixelLoss]:
        options, content = self._options, self._canvas.content
        if options.tv_weight > 0:
            # Scale-free: a mean over the pixels in [0, 1].
            factor = 1 / (255 * content.numel()) if options.normalize else 1
            yield TotalVariationLoss(factor * options.tv_weight)
        if options.laplacian_weight > 0:
            yield LaplacianLoss(options.laplacian_weight, laplacian(self._canvas.compose(content)))
        if self._spec.reference is not None and options.temporal_weight > 0:
            mask = self._spec.reference_mask
            yield TemporalLoss(
                options.temporal_weight,
                self._spec.reference.to_tensor().to(self._model.device),
                None if mask is None else mask_to_tensor(mask).to(self._model.device),
            )


def _channels(layer: str) -> int:
    return KERNEL_SHAPES[conv_of(layer)][0]
