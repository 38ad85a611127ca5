"""A cache for the statistics of style pictures: a style that comes again need not pass through the network again."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from nst_service.engine.choices import StyleStatisticKind
from nst_service.engine.network.plan import Variant
from nst_service.engine.sizes import Size

LayerStatistics = Mapping[str, Tensor]
"""The statistic of a whole picture at each layer by its name."""


class StyleKey(NamedTuple):
    """Everything that the statistics of a style picture depend on, to the last bit."""

    pixels_sha256: str
    """SHA-256 of the pixels that the network sees: they depend on picture, scale and colour mode."""
    size: Size
    """Size of the picture."""
    layers: tuple[str, ...]
    """Style layers, in the order of the options."""
    statistic: StyleStatisticKind
    """Statistic that is gathered."""
    seed: int
    """Seed of the directions of a sliced Wasserstein loss."""
    variant: Variant
    """The variant of the network."""
    tile_size: int | None
    """Edge of a tile in pixels: tiles give the statistics of the whole up to rounding."""
    weights_sha256: str
    """SHA-256 of the weights of the network."""
    device: str
    """Name of the device."""


def digest(pixels: Tensor) -> str:
    """Return the SHA-256 of pixels, lower-case hex."""
    return hashlib.sha256(pixels.contiguous().cpu().numpy().data).hexdigest()


class StyleCache:
    """Keeps the statistics that were used last, up to a number of bytes. Belongs to one thread.

    Cached statistics are equal to what would be computed: a result never depends on what ran before.
    """

    def __init__(self, max_bytes: int):
        """Make an empty cache; with `max_bytes` of 0 it stays empty."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[StyleKey, LayerStatistics] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """The bytes of all statistics in the cache."""
        return sum(map(_bytes_of, self._entries.values()))

    def get(self, key: StyleKey) -> LayerStatistics | None:
        """Return the statistics of a key, which nobody may change, or None."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: StyleKey, statistics: LayerStatistics) -> None:
        """Add statistics, and evict those that were not used for the longest time if there are too many."""
        if _bytes_of(statistics) > self.max_bytes:
            return
        self._entries[key] = statistics
        while self.held_bytes > self.max_bytes:
            self._entries.popitem(last=False)


def _bytes_of(statistics: LayerStatistics) -> int:
    return sum(statistic.nbytes for statistic in statistics.values())
