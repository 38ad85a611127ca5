"""What an optimiser's pixels mean: from what it changes to what the network sees and to what leaves the engine."""

from dataclasses import dataclass

from torch import Tensor

from nst_service.engine.choices import ColorMode
from nst_service.engine.pictures.colors import luminance, with_chroma_lab, with_chroma_yiq


@dataclass(frozen=True, slots=True)
class Canvas:
    """How pixels become a picture."""

    content: Tensor
    """(1, 3, H, W) in [0, 1]."""
    mask: Tensor | None = None
    """(1, 1, H, W): 1 where the picture may change, 0 where the content stays."""
    color: ColorMode = ColorMode.STYLE

    def compose(self, pixels: Tensor) -> Tensor:
        """Return what the network sees of pixels (1, 3, H, W); differentiable."""
        content = self.content
        if self.color is ColorMode.LUMINANCE:
            pixels, content = (luminance(picture).expand_as(picture) for picture in (pixels, content))
        if self.mask is not None:
            pixels = content + self.mask * (pixels - content)
        return pixels

    def finish(self, pixels: Tensor) -> Tensor:
        """Return the picture that leaves the engine, (1, 3, H, W) in [0, 1]."""
        seen = self.compose(pixels).clamp(0, 1)
        match self.color:
            case ColorMode.LUMINANCE | ColorMode.YIQ:
                return with_chroma_yiq(seen, self.content)
            case ColorMode.LAB:
                return with_chroma_lab(seen, self.content)
            case _:
                return seen
