"""The outline of a transfer: what is known of it from its options and the headers of its pictures, without pixels."""

import dataclasses
import math
from dataclasses import dataclass

from nst_service.engine.network.layers import minimum_edge
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.sizes import Size, scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOutline:
    """The sizes and the checked options of a transfer. It is enough to plan the transfer, and takes no memory."""

    size: Size
    """The size of the result."""
    styles: tuple[Size, ...]
    """The working sizes of the styles."""
    options: TransferOptions
    """The options of the transfer, with every default filled in."""
    output: OutputOptions
    """The options of the result file."""
    larger: "TransferOutline | None" = None
    """The outline that this one was reduced from; None for the requested size."""

    @property
    def reduced_from(self) -> Size | None:
        """The requested size of the result, where memory does not suffice for it."""
        return self.steps[0].size if self.larger else None

    @property
    def steps(self) -> tuple["TransferOutline", ...]:
        """The outlines from the requested size to this one. Pictures are resampled to the size of each in turn."""
        return (*self.larger.steps, self) if self.larger else (self,)

    def reduced(self, size: Size) -> "TransferOutline":
        """Return the outline for a smaller result, with the same scales and iterations."""
        factor = max(size) / max(self.size)
        return dataclasses.replace(
            self,
            size=size,
            styles=tuple(scaled(style, factor) for style in self.styles) if size != self.size else self.styles,
            options=dataclasses.replace(self.options, image_size=max(size)),
            larger=self,
        )

    @property
    def least_edge(self) -> int:
        """The longest edge of the result below which a layer has no feature at some scale, in pixels."""
        layers = self.options.active_layers
        # Two pixels more, since every size is rounded twice.
        least = minimum_edge(layers) + 2 if layers else 1
        longest = max(self.size)
        shortest = min(min(size) for size in (self.size, *self.styles))
        return min(longest, math.ceil((least << (self.options.scales - 1)) * longest / shortest))
