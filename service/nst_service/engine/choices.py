"""The enums of the options: each names the choices that an option has."""

from enum import StrEnum


class OutputFormat(StrEnum):
    """File formats that a result can be encoded in (`pictures.formats` has what each of them can hold)."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"
    TIFF = "tiff"


class Padding(StrEnum):
    """Values that a convolution reads beyond the edge of its input."""

    ZERO = "zero"
    """Zeros, as the network was trained. They act like a black frame, which no picture has."""
    REFLECT = "reflect"
    """The features mirrored at the edge, so that there is no frame."""


class Pooling(StrEnum):
    """Operations that reduce the resolution between two blocks of the network."""

    MAX = "max"
    """The maximum of four features, as the network was trained."""
    AVERAGE = "average"
    """The mean of four features, rescaled: smoother pictures (Gatys, Ecker & Bethge 2016, section 2)."""
    L2 = "l2"
    """The root of the mean of four squared features, rescaled: between the other two."""


class ColorMode(StrEnum):
    """Sources of the colours of a result."""

    STYLE = "style"
    """The style."""
    MATCH = "match"
    """The content: the colours of the style are matched to those of the content first."""
    LUMINANCE = "luminance"
    """The content: only luminance is transferred, and the colours of the content are put back."""
    YIQ = "yiq"
    """The content: its I and Q are combined with the luma of the finished picture."""
    LAB = "lab"
    """The content: its a* and b* are combined with the lightness of the finished picture."""


class StyleStatisticKind(StrEnum):
    """Statistics of features that a style loss can compare. The option is called `style_loss`."""

    GRAM = "gram"
    MOMENTS = "moments"
    SLICED_WASSERSTEIN = "sliced_wasserstein"


class OptimizerKind(StrEnum):
    """Optimisers that can change the pixels."""

    LBFGS = "lbfgs"
    ADAM = "adam"


class Init(StrEnum):
    """Pictures that an optimisation can start from."""

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
