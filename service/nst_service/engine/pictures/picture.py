"""A decoded picture, its transparency and its masks."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageChops
from PIL.Image import Resampling

from nst_service.engine.sizes import Size

_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright sRGB picture with 8 bits per channel, its transparency set aside."""

    rgb: Image.Image
    """Colours in mode RGB. White where `alpha` is 0, so that no hidden colour bleeds into what is visible."""
    alpha: Image.Image | None = None
    """Transparency in mode L, or None where the picture is opaque."""

    @classmethod
    def blank(cls, size: Size) -> Picture:
        """Make a mid-grey opaque picture."""
        return cls(Image.new("RGB", size, (128, 128, 128)))

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return Size(*self.rgb.size)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.rgb.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.rgb.height

    def flattened(self) -> Picture:
        """Return the picture on a white ground, opaque."""
        return self if self.alpha is None else Picture(on_white(self.rgb, self.alpha))

    def resized(self, size: Size) -> Picture:
        """Return the picture at another size, resampled by Lanczos' filter."""
        if size == self.size:
            return self
        if self.alpha is None:
            return Picture(resampled(self.rgb, size))
        # Pillow weighs the colours of an RGBA picture by their alpha.
        rgba = self.rgb.copy()
        rgba.putalpha(self.alpha)
        rgba = resampled(rgba, size)
        return set_aside(rgba.convert("RGB"), rgba.getchannel("A"))

    def to_mask(self) -> Image.Image:
        """Return the brightness in mode L; transparent pixels are black."""
        grey = self.rgb.convert("L")
        return grey if self.alpha is None else ImageChops.multiply(grey, self.alpha)


def resampled(image: Image.Image, size: Size) -> Image.Image:
    """Return an image at another size, by Lanczos' filter."""
    return image if image.size == size else image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)


def set_aside(rgb: Image.Image, alpha: Image.Image) -> Picture:
    """Return a picture of colours and transparency; fully transparent pixels become white.

    Args:
        rgb: colours in mode RGB, which are changed in place.
        alpha: transparency in mode L, which is dropped where it is opaque everywhere.
    """
    if alpha.getextrema() == (255, 255):
        return Picture(rgb)
    rgb.paste(_WHITE, mask=alpha.point([255] + 255 * [0]))
    return Picture(rgb, alpha)


def on_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return colours blended onto white by their transparency."""
    ground = Image.new("RGB", rgb.size, _WHITE)
    ground.paste(rgb, mask=alpha)
    return ground
