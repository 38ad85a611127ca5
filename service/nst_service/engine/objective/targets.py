"""The targets of a specification: the features and statistics that its losses compare with."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_service.engine.arena import channels_last
from nst_service.engine.choices import ColorMode, StyleStatisticKind
from nst_service.engine.network.layers import Window, channels_of, features_shape
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.extractor import Extractor
from nst_service.engine.objective.statistics import Region, StyleStatistic, make_statistic
from nst_service.engine.objective.style_cache import LayerStatistics, StyleCache, StyleKey, digest
from nst_service.engine.pictures.colors import luminance, match_colors, match_luminance
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.sizes import Size
from nst_service.engine.spec import Style, TransferSpec


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a specification."""

    content: Mapping[str, Tensor]
    """Features of the content picture, (1, C, h, w), by content layer."""
    statistics: Mapping[str, StyleStatistic]
    """The statistic that is compared at each style layer."""
    styles: tuple[LayerStatistics, ...]
    """The statistics of each style picture, in the order of the specification."""


class TargetComputation:
    """Computes the targets of a specification part by part. A part is a picture, or a tile of one."""

    def __init__(
        self,
        spec: TransferSpec,
        model: Vgg19,
        canvas: Canvas,
        tile_size: int | None = None,
        style_cache: StyleCache | None = None,
    ):
        """Prepare a computation.

        Args:
            spec: specification of the transfer.
            model: the network.
            canvas: canvas of this specification.
            tile_size: edge of a tile in pixels, or None to take pictures as a whole.
            style_cache: statistics of styles that are known already; those that are computed are added.
        """
        self._spec = spec
        self._options = spec.options
        self._model = model
        self._canvas = canvas
        self._tile_size = tile_size
        self._style_cache = style_cache or StyleCache(0)
        self._extractor = Extractor(model, spec.options.variant, tile_size)
        self._statistics = {layer: self._statistic(layer) for layer in spec.options.active_style_layers}
        self._content: dict[str, Tensor] = {}
        self._styles: list[LayerStatistics] = []

    @property
    def parts(self) -> int:
        """The number of parts: one for each picture whose features are needed, or one for each of its tiles."""
        contents = [self._spec.content] if self._options.active_content_layers else []
        styles = [style.picture for style in self._spec.styles] if self._statistics else []
        return sum(self._extractor.count_tiles(picture.size) for picture in (*contents, *styles))

    @torch.no_grad()
    def run(self) -> Iterator[int]:
        """Compute the targets; yield the number of parts done after each. A style in the cache is done at once."""
        done = 0
        for computation in (self._compute_content(), *map(self._compute_style, self._spec.styles)):
            for parts in computation:
                done += parts
                yield done

    @property
    def targets(self) -> Targets:
        """The targets, after `run`."""
        return Targets(self._content, self._statistics, tuple(self._styles))

    def _compute_content(self) -> Iterator[int]:
        """Compute the features of the whole content picture; yield the number of parts done in each step."""
        layers = list(self._options.active_content_layers)
        if not layers:
            return
        # The network sees the content picture as the canvas shows it.
        content = self._canvas.compose(self._canvas.content)
        self._content = {layer: self._empty_features(layer) for layer in layers}

        def store(layer: str, features: Tensor, window: Window) -> list[Tensor]:
            self._content[layer][(..., *window)] = features
            return []

        for _ in self._extractor.visit_features(content, layers, store):
            yield 1

    def _empty_features(self, layer: str) -> Tensor:
        shape = features_shape(self._spec.content.size, layer)
        return channels_last(torch.empty(1, channels_of(layer), *shape, device=self._model.device))

    def _compute_style(self, style: Style) -> Iterator[int]:
        """Compute the statistics of a whole style picture; yield the number of parts done in each step."""
        if not self._statistics:
            return
        pixels = self._style_pixels(style)
        key = self._style_key(pixels)
        if cached := self._style_cache.get(key):
            self._styles.append(cached)
            yield self._extractor.count_tiles(style.picture.size)
            return

        def gather(layer: str, features: Tensor, window: Window) -> list[Tensor]:
            whole = Region.whole(features_shape(style.picture.size, layer))
            return [self._statistics[layer].gather(features, whole, window)]

        partials: dict[str, list[Tensor]] = {layer: [] for layer in self._statistics}
        for visits in self._extractor.visit_features(pixels, list(self._statistics), gather):
            for layer, windows in visits.items():
                partials[layer] += itertools.chain.from_iterable(windows)
            yield 1
        computed = {layer: statistic.combine(partials[layer]) for layer, statistic in self._statistics.items()}
        self._styles.append(computed)
        self._style_cache.put(key, computed)

    def _style_pixels(self, style: Style) -> Tensor:
        """Return what the network sees of a style picture, (1, 3, h, w) in [0, 1]."""
        pixels = picture_to_tensor(style.picture).to(self._model.device)
        match self._options.color:
            case ColorMode.MATCH:
                return match_colors(pixels, self._canvas.content)
            case ColorMode.LUMINANCE:
                grey = match_luminance(luminance(pixels), luminance(self._canvas.content))
                return grey.expand_as(pixels)
            case ColorMode.STYLE | ColorMode.YIQ | ColorMode.LAB:
                return pixels

    def _style_key(self, pixels: Tensor) -> StyleKey:
        options = self._options
        return StyleKey(
            pixels_sha256=digest(pixels),
            size=Size.of(pixels),
            layers=tuple(self._statistics),
            statistic=options.style_loss,
            seed=options.seed if options.style_loss is StyleStatisticKind.SLICED_WASSERSTEIN else 0,
            variant=options.variant,
            tile_size=self._tile_size,
            weights_sha256=self._model.weights_sha256,
            device=str(self._model.device),
        )

    def _statistic(self, layer: str) -> StyleStatistic:
        kind, seed = self._options.style_loss, self._options.seed
        return make_statistic(kind, channels_of(layer), seed=seed, device=self._model.device)
