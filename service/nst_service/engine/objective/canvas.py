"""The canvas makes pictures from the pixels that an optimiser changes: one for the losses, and the finished one."""

import dataclasses
from dataclasses import dataclass
from typing import assert_never

from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import ColorMode
from nst_service.engine.pictures.colors import luminance, with_chroma_lab, with_chroma_yiq
from nst_service.engine.sizes import Shape


@dataclass(frozen=True, slots=True)
class Canvas:
    """The rules by which the pixels that an optimiser changes become a picture."""

    content: Tensor
    """Pixels of the content picture, (1, 3, H, W) in [0, 1]."""
    mask: Tensor | None = None
    """Mask (1, 1, H, W): 1 where the picture may change, 0 where the content stays. None if all of it may change."""
    color: ColorMode = ColorMode.STYLE
    """The source of the colours of the finished picture."""

    def compose(self, pixels: Tensor) -> Tensor:
        """Return what the network sees of pixels (1, 3, H, W); differentiable."""
        content = self.content
        match self.color:
            case ColorMode.LUMINANCE:
                pixels, content = (luminance(picture).expand_as(picture) for picture in (pixels, content))
            case ColorMode.STYLE | ColorMode.MATCH | ColorMode.YIQ | ColorMode.LAB:
                pass
            case unknown:
                assert_never(unknown)
        if self.mask is not None:
            pixels = content + self.mask * (pixels - content)
        return pixels

    def finish(self, pixels: Tensor) -> Tensor:
        """Return the picture that leaves the engine, (1, 3, H, W) in [0, 1]."""
        composed = self.compose(pixels).clamp(0, 1)
        match self.color:
            case ColorMode.LUMINANCE | ColorMode.YIQ:
                return with_chroma_yiq(composed, self.content)
            case ColorMode.LAB:
                return with_chroma_lab(composed, self.content)
            case ColorMode.STYLE | ColorMode.MATCH:
                return composed

    def resampled(self, pixels: Tensor, target: "Canvas") -> Tensor:
        """Return pixels (1, 3, H, W) of this canvas on another one, which may have another size.

        Only the change of the content is interpolated, so that the content stays sharp. On the same canvas, the pixels
        are returned as they are.
        """
        if target is self:
            return pixels
        shape = Shape.of(target.content)
        change = functional.interpolate(pixels - self.content, shape, mode="bicubic", align_corners=False)
        return (target.content + change).clamp_(0, 1)

    def reduced(self, shape: Shape) -> "Canvas":
        """Return this canvas at a smaller shape."""

        def smaller(picture: Tensor) -> Tensor:
            return functional.interpolate(picture, shape, mode="bilinear", antialias=True)

        return dataclasses.replace(
            self, content=smaller(self.content), mask=None if self.mask is None else smaller(self.mask)
        )
