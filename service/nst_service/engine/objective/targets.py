"""From a specification to its criterion: the targets, and the losses that lead to them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import ColorMode, StyleStatisticKind
from nst_service.engine.network.layers import KERNEL_SHAPES, Window, conv_of, features_shape
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.criterion import Criterion, Extractor
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
from nst_service.engine.objective.statistics import (
    SLICED_DIRECTIONS,
    GramStatistic,
    MomentsStatistic,
    Region,
    SlicedProjectionsStatistic,
    StyleStatistic,
)
from nst_service.engine.objective.style_cache import Statistics, StyleCache, StyleKey, digest
from nst_service.engine.pictures.colors import luminance, match_colors, match_luminance
from nst_service.engine.pictures.picture import mask_to_tensor
from nst_service.engine.spec import Style, TransferSpec


def build_canvas(spec: TransferSpec, device: torch.device) -> Canvas:
    """Return how the pixels of a specification become its picture."""
    mask = None if spec.content_mask is None else mask_to_tensor(spec.content_mask).to(device)
    return Canvas(spec.content.to_tensor().to(device), mask, spec.options.color)


def build_criterion(spec: TransferSpec, model: Vgg19, canvas: Canvas, tile: int | None = None) -> Criterion:
    """Compute the targets of a specification and compose its losses, without a pause (see `CriterionBuilder`)."""
    builder = CriterionBuilder(spec, model, canvas, tile)
    for _ in builder.extract():
        pass
    return builder.build()


class CriterionBuilder:
    """Computes the targets of a specification part by part, then composes its losses."""

    def __init__(
        self,
        spec: TransferSpec,
        model: Vgg19,
        canvas: Canvas,
        tile: int | None = None,
        styles: StyleCache | None = None,
    ):
        """Make a builder.

        Args:
            spec: what shall be done.
            model: the network.
            canvas: of this specification.
            tile: edge of a tile in pixels, or None to take pictures as a whole.
            styles: statistics that are known already, and where those that are computed shall be kept.
        """
        self.spec = spec
        self._options = spec.options
        self._model = model
        self.canvas = canvas
        self._tile = tile
        self._styles = styles or StyleCache(0)
        self._extractor = Extractor(model, spec.options.variant, tile)
        layers = spec.options.active_layers
        self._scales: Mapping[str, float] = (
            model.activation_scales(layers, spec.options.pooling)
            if spec.options.normalize
            else dict.fromkeys(layers, 1.0)
        )
        self._statistics = {layer: self._statistic(layer) for layer in spec.options.active_style_layers}
        self._content: dict[str, Tensor] = {}
        self._gathered: list[Statistics] = []
        """The statistics of every style by layer."""

    @property
    def parts(self) -> int:
        """How many parts there are: a picture whose targets are needed has one, or as many as it has tiles."""
        contents = [self.spec.content] if self._options.active_content_layers else []
        styles = [style.picture for style in self.spec.styles] if self._statistics else []
        return sum(self._extractor.count(picture.size) for picture in (*contents, *styles))

    @torch.no_grad()
    def extract(self) -> Iterator[int]:
        """Compute the targets; yield after every part how many are done. A style that is known is done at once."""
        done = 0
        for extraction in (self._extract_content(), *map(self._extract_style, self.spec.styles)):
            for parts in extraction:
                done += parts
                yield done

    @torch.no_grad()
    def build(self) -> Criterion:
        """Compose the losses, once all is extracted; terms of weight zero are left out."""
        return Criterion(
            self._extractor,
            [*self._content_losses(), *self._style_losses()],
            list(self._pixel_losses()),
            self.canvas.compose,
        )

    def _extract_content(self) -> Iterator[int]:
        """Compute the features of the whole content picture; yield the number of parts after every one."""
        layers = list(self._options.active_content_layers)
        if not layers:
            return
        # What the network shall see is the content picture as the canvas shows it.
        content = self.canvas.compose(self.canvas.content)
        self._content = {layer: self._empty_features(layer) for layer in layers}

        def keep(layer: str, features: Tensor, window: Window) -> list[Tensor]:
            self._content[layer][(..., *window)] = features
            return []

        for _ in self._extractor.visit_features(content, layers, keep):
            yield 1

    def _empty_features(self, layer: str) -> Tensor:
        height, width = features_shape(self.spec.content.size, layer)
        features = torch.empty(1, _channels(layer), height, width, device=self._model.device)
        return features.contiguous(memory_format=torch.channels_last)

    def _extract_style(self, style: Style) -> Iterator[int]:
        """Gather the statistics of a whole style picture; yield the number of parts after every one, or after all."""
        if not self._statistics:
            return
        pixels = self._style_pixels(style)
        key = self._style_key(pixels)
        if known := self._styles.get(key):
            self._gathered.append(known)
            yield self._extractor.count(style.picture.size)
            return
        layers = list(self._statistics)

        def statistic(layer: str, features: Tensor, window: Window) -> list[Tensor]:
            whole = Region(None, math.prod(features_shape(style.picture.size, layer)))
            return [self._statistics[layer].gather(features, whole, window)]

        parts: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        for tile in self._extractor.visit_features(pixels, layers, statistic):
            for layer, gathered_parts in tile.items():
                parts[layer] += itertools.chain.from_iterable(gathered_parts)
            yield 1
        gathered = {layer: self._statistics[layer].combine(parts[layer]) for layer in layers}
        self._gathered.append(gathered)
        self._styles.put(key, gathered)

    def _style_key(self, pixels: Tensor) -> StyleKey:
        options = self._options
        return StyleKey(
            pixels_sha256=digest(pixels),
            shape=tuple(pixels.shape),
            layers=tuple(self._statistics),
            style_loss=options.style_loss,
            seed=options.seed if options.style_loss is StyleStatisticKind.SLICED_WASSERSTEIN else 0,
            variant=options.variant,
            tile=self._tile,
            weights_sha256=self._model.weights_sha256,
            device=str(self._model.device),
        )

    def _content_losses(self) -> Iterator[FeatureLoss]:
        for layer, weight in self._options.active_content_layers.items():
            yield ContentLoss(layer, weight / self._scales[layer] ** 2, self._content[layer])

    def _style_losses(self) -> Iterator[StyleLoss]:
        if not self._statistics:
            return
        styles = list(zip(self.spec.styles, self._gathered, strict=True))
        if everywhere := [(style, gathered) for style, gathered in styles if style.mask is None]:
            yield from self._losses_of(everywhere, None)
        for style, gathered in styles:
            if style.mask is not None:
                yield from self._losses_of([(style, gathered)], mask_to_tensor(style.mask).to(self._model.device))

    def _losses_of(self, styles: Sequence[tuple[Style, Statistics]], mask: Tensor | None) -> Iterator[StyleLoss]:
        """Yield the losses of styles, each with its statistics, that are blended in one region."""
        share = sum(style.share for style, _ in styles)
        for layer, statistic in self._statistics.items():
            region = self._region(layer, mask)
            if region.area > 0:
                target = statistic.blend([(gathered[layer], style.share / share) for style, gathered in styles])
                weight = share * self._options.active_style_layers[layer] * self._factor(layer, statistic)
                yield StyleLoss(layer, weight, statistic, target, region)

    def _factor(self, layer: str, statistic: StyleStatistic) -> float:
        """Return what makes a style loss free of scale, where that is asked for."""
        # A Gram matrix is divided by the number of channels.
        channels = _channels(layer) if self._options.normalize and isinstance(statistic, GramStatistic) else 1
        return float(channels**2 / self._scales[layer] ** statistic.degree)

    def _style_pixels(self, style: Style) -> Tensor:
        pixels = style.picture.to_tensor().to(self._model.device)
        match self._options.color:
            case ColorMode.MATCH:
                return match_colors(pixels, self.canvas.content)
            case ColorMode.LUMINANCE:
                grey = match_luminance(luminance(pixels), luminance(self.canvas.content))
                return grey.expand_as(pixels)
            case _:
                return pixels

    def _region(self, layer: str, mask: Tensor | None) -> Region:
        """Return a mask at the resolution of a layer: each feature counts as much as the pixels it stands for."""
        height, width = features_shape(self.spec.content.size, layer)
        if mask is None:
            return Region(None, width * height)
        small = functional.interpolate(mask, (height, width), mode="area")
        return Region(small, small.sum().item())

    def _statistic(self, layer: str) -> StyleStatistic:
        match self._options.style_loss:
            case StyleStatisticKind.GRAM:
                return GramStatistic()
            case StyleStatisticKind.MOMENTS:
                return MomentsStatistic()
            case StyleStatisticKind.SLICED_WASSERSTEIN:
                return SlicedProjectionsStatistic(self._directions(_channels(layer)))

    def _directions(self, channels: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._options.seed)
        basis, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
        directions: Tensor = basis[:, :SLICED_DIRECTIONS].contiguous()
        return directions.to(self._model.device)

    def _pixel_losses(self) -> Iterator[PixelLoss]:
        options, content = self._options, self.canvas.content
        if options.tv_weight > 0:
            # Scale-free: a mean over the pixels in [0, 1].
            factor = 1 / (255 * content.numel()) if options.normalize else 1
            yield TotalVariationLoss(factor * options.tv_weight)
        if options.laplacian_weight > 0:
            yield LaplacianLoss(options.laplacian_weight, laplacian(self.canvas.compose(content)))
        if self.spec.reference is not None and options.temporal_weight > 0:
            mask = self.spec.reference_mask
            yield TemporalLoss(
                options.temporal_weight,
                self.spec.reference.to_tensor().to(self._model.device),
                None if mask is None else mask_to_tensor(mask).to(self._model.device),
            )


def _channels(layer: str) -> int:
    return KERNEL_SHAPES[conv_of(layer)][0]
