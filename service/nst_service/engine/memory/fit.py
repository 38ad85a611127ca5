"""How a transfer fits into a given memory: in tiles, at a smaller size, with a shorter history of the optimiser."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nst_service.engine.memory.footprint import peak_bytes, picture_bytes
from nst_service.engine.network.backend import CPU_BACKEND, Backend
from nst_service.engine.network.layers import minimum_edge
from nst_service.engine.options import TransferOptions
from nst_service.engine.outline import TransferOutline
from nst_service.engine.sizes import Size, fit, scaled

_TILE_SIZES = (2048, 1024, 512, 256)
"""Edges of tiles that are tried, in pixels: the larger, the less is computed twice."""
_SHORT_HISTORY = 3
"""Steps from which L-BFGS still learns much of what it does from more."""
_CONSIDERABLY_LESS = 0.8
"""Share of the memory that may be left for a shorter history to be worth it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory that a transfer may hold on its device."""

    available: int = sys.maxsize
    """Bytes that the transfer may hold at once."""
    backend: Backend = CPU_BACKEND
    """The implementation of the convolutions, on which depends how much they keep for the backward pass."""
    holds_pictures: bool = False
    """Whether the pictures of the request are in the same memory, as on a CPU."""
    limit: str = ""
    """The name of the setting that limits the memory; empty if the device itself does."""

    @classmethod
    def common(cls, memories: Iterable["Memory"]) -> "Memory":
        """Return what a transfer may hold on any of several devices."""
        each = tuple(memories)
        keeps_more = any(memory.backend is Backend.TORCH for memory in each)
        least = min(each, key=lambda memory: memory.available)
        return cls(
            least.available,
            Backend.TORCH if keeps_more else Backend.NATIVE,
            holds_pictures=any(memory.holds_pictures for memory in each),
            limit=least.limit,
        )

    def share(self, share: float) -> "Memory":
        """Return a part of it."""
        return dataclasses.replace(self, available=round(share * self.available))


ANY_MEMORY = Memory()
"""Memory for a transfer of any size."""


class TileFit(NamedTuple):
    """The tiles that a transfer works in, and the memory that it holds then."""

    tile_size: int | None
    """Edge of the tiles in pixels, or None where pictures are taken as a whole."""
    peak_bytes: int
    """The most bytes that are held at once."""


class HistoryFit(NamedTuple):
    """A shorter history of L-BFGS, and the memory that a transfer holds with it."""

    steps: int
    """Steps that the optimiser keeps."""
    peak_bytes: int
    """The most bytes that are held at once."""


def fitting_tile(options: TransferOptions, size: Size, styles: Sequence[Size], memory: Memory) -> TileFit:
    """Return the largest tiles that fit, and the smallest ones where none fit.

    Args:
        options: the options of the transfer.
        size: the size of the result.
        styles: the sizes of the styles.
        memory: what the transfer may hold.
    """
    tile_size: int | None = None
    pictures = picture_bytes(size, styles) if memory.holds_pictures else 0
    for tile_size in (None, *_TILE_SIZES):
        peak = pictures + peak_bytes(options, size, styles, tile_size, memory.backend)
        if peak <= memory.available:
            break
    return TileFit(tile_size, peak)


def largest_size_within(memory: Memory, options: TransferOptions, size: Size, styles: Sequence[Size]) -> int:
    """Return the longest edge of the largest result that fits into the memory, in pixels.

    Args:
        memory: what the transfer may hold.
        options: the options of the transfer.
        size: the size of the result that is asked for; nothing larger is looked for.
        styles: the sizes of the styles beside that, which change with it.

    Returns:
        The edge; 0 where not even the smallest result fits.
    """
    low, high = 0, max(size)
    while low < high:
        edge = (low + high + 1) // 2
        smaller = [scaled(style, edge / max(size)) for style in styles]
        if fitting_tile(options, fit(size, edge), smaller, memory).peak_bytes <= memory.available:
            low = edge
        else:
            high = edge - 1
    return low if low >= minimum_edge(options.active_layers) else 0


def shorter_history(outline: TransferOutline, memory: Memory) -> HistoryFit | None:
    """Return a history of L-BFGS with which a transfer needs considerably less memory, in the tiles that fit then.

    None where the history is no considerable part of the memory.
    """
    size, styles = outline.size, outline.styles
    with_all = fitting_tile(outline.options, size, styles, memory)
    options = dataclasses.replace(outline.options, lbfgs_history=_SHORT_HISTORY)
    shorter = fitting_tile(options, size, styles, memory)
    if shorter.peak_bytes > _CONSIDERABLY_LESS * with_all.peak_bytes:
        return None
    return HistoryFit(_SHORT_HISTORY, shorter.peak_bytes)
