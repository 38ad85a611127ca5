"""The features of a picture, whole or tile by tile."""

import functools
from collections.abc import Iterator, Sequence

from torch import Tensor

from nst_service.engine.network.layers import Window
from nst_service.engine.network.plan import REFERENCE_VARIANT, Variant
from nst_service.engine.network.tiles import Tile, count_tiles, tiles
from nst_service.engine.network.vgg import FeatureVisitor, Vgg19, Visits
from nst_service.engine.sizes import Size


class Extractor:
    """Computes the features of pictures, whole or tile by tile."""

    def __init__(self, model: Vgg19, variant: Variant = REFERENCE_VARIANT, tile_size: int | None = None):
        """Make an extractor.

        Args:
            model: the network.
            variant: how its weights are applied.
            tile_size: edge of the core of a tile in pixels, or None to take pictures as a whole.
        """
        self._model = model
        self._variant = variant
        self._tile_size = tile_size

    @property
    def is_tiled(self) -> bool:
        """Whether pictures are taken tile by tile."""
        return self._tile_size is not None

    def count_tiles(self, size: Size) -> int:
        """Return the number of tiles of a picture; one that is taken as a whole counts as one tile."""
        return 1 if self._tile_size is None else count_tiles(size, self._tile_size)

    def visit_features(self, pixels: Tensor, layers: Sequence[str], visit: FeatureVisitor) -> Iterator[Visits]:
        """Visit the features of a picture (1, 3, H, W), tile by tile or as a whole.

        Args:
            pixels: pixels of the picture.
            layers: layers whose features are visited.
            visit: called with features and their window in those of the whole picture (see `Vgg19.visit_features`).
                Each feature is visited once, or once more in a backward pass.

        Yields:
            What `visit` returned for each tile, by layer, window by window. A window that lies outside of the core of
            its tile has no tensors.
        """
        if self._tile_size is None:
            yield self._model.visit_features(pixels, layers, visit, self._variant)
            return
        for tile in tiles(Size.of(pixels), self._tile_size, layers):
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
