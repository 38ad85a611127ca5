"""Statistics of style pictures that are kept, so that a style that comes again need not be looked at again."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from nst_service.engine.choices import StyleStatisticKind
from nst_service.engine.network.plan import Variant

Statistics = Mapping[str, Tensor]
"""The statistic of a whole picture at each layer by its name."""


class StyleKey(NamedTuple):
    """All that the statistics of a style picture depend on, to the last bit."""

    pixels_sha256: str
    """Of what the network sees: picture, scale, and what the colour mode makes of it."""
    shape: tuple[int, ...]
    layers: tuple[str, ...]
    """In the order of the options."""
    style_loss: StyleStatisticKind
    seed: int
    """Of the directions of a sliced Wasserstein loss."""
    variant: Variant
    tile: int | None
    """Tiles give the statistics of the whole up to rounding."""
    weights_sha256: str
    device: str


def digest(pixels: Tensor) -> str:
    """Return the SHA-256 of pixels, lower-case hex."""
    return hashlib.sha256(pixels.contiguous().cpu().numpy().data).hexdigest()


class StyleCache:
    """Keeps the statistics that were used last, up to a number of bytes. Belongs to one thread.

    What is kept is what would be computed: a result never depends on what ran before.
    """

    def __init__(self, max_bytes: int):
        """Make an empty cache; `max_bytes` of 0 keeps nothing."""
        self.max_bytes = max_bytes
        self._entries: OrderedDict[StyleKey, Statistics] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """What is kept now."""
        return sum(map(_bytes_of, self._entries.values()))

    def get(self, key: StyleKey) -> Statistics | None:
        """Return what was kept, which nobody may change, or None."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: StyleKey, statistics: Statistics) -> None:
        """Keep statistics, and forget those that were not used for the longest time if there are too many."""
        if _bytes_of(statistics) > self.max_bytes:
            return
        self._entries[key] = statistics
        while self.held_bytes > self.max_bytes:
            self._entries.popitem(last=False)


def _bytes_of(statistics: Statistics) -> int:
    return sum(statistic.nbytes for statistic in statistics.values())
