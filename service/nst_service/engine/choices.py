"""The options of a transfer whose values have names."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """Formats that `encode` writes."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    TIFF = "tiff"

    @property
    def media_type(self) -> str:
        """Such as "image/png"."""
        return f"image/{self}"

    @property
    def max_edge(self) -> int:
        """The longest edge that the format can hold, in pixels."""
        return {OutputFormat.JPEG: 65_500, OutputFormat.WEBP: 16_383}.get(self, 2**31 - 1)


class Padding(StrEnum):
    """What a convolution sees beyond the edge."""

    ZERO = "zero"
    """Black: the network as it was trained. It sees a frame that no picture has."""
    REFLECT = "reflect"
    """The features mirrored at the edge: no frame."""


class Pooling(StrEnum):
    """What stands between the blocks."""

    MAX = "max"
    """The network as it was trained."""
    AVERAGE = "average"
    """The mean of four features, rescaled: smoother pictures (Gatys, Ecker & Bethge 2016, section 2)."""
    L2 = "l2"
    """The root of the mean of four squared features, rescaled: between the two."""


class ColorMode(StrEnum):
    """Where the colours of the result come from."""

    STYLE = "style"
    """From the style."""
    MATCH = "match"
    """From the content: the style's colours are moved to those of the content before."""
    LUMINANCE = "luminance"
    """From the content: only luminance is transferred, and the content's colours are put back."""
    YIQ = "yiq"
    """From the content: its I and Q with the luma of the finished picture."""
    LAB = "lab"
    """From the content: its a* and b* with the lightness of the finished picture."""


class StyleLossName(StrEnum):
    """The style losses by name."""

    GRAM = "gram"
    MOMENTS = "moments"
    SLICED_WASSERSTEIN = "sliced_wasserstein"


class OptimizerName(StrEnum):
    """The optimisers by name."""

    LBFGS = "lbfgs"
    ADAM = "adam"


class Init(StrEnum):
    """What an optimisation starts from."""

    CONTENT = "content"
    RANDOM = "random"
    STYLE = "style"
    PICTURE = "picture"


class Preset(StrEnum):
    """Sets of options that belong together (see `PRESETS`)."""

    BALANCED = "balanced"
    REFERENCE = "reference"
    FAST = "fast"
    TEXTURE = "texture"
    RECONSTRUCT = "reconstruct"
