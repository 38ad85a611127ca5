"""The architecture of VGG-19 (Simonyan & Zisserman, 2014, configuration E): names and shapes of its layers."""

from collections.abc import Collection
from itertools import pairwise
from typing import NamedTuple

from nst_service.engine.sizes import Shape, Size


class Window(NamedTuple):
    """The rows and columns of a layer's features that a part of them covers."""

    rows: slice
    columns: slice


WHOLE = Window(slice(None), slice(None))
"""The window of all features."""

_CHANNELS_OF_BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)

CONVS = tuple(
    f"conv{block}_{index}"
    for block, channels in enumerate(_CHANNELS_OF_BLOCKS, 1)
    for index in range(1, len(channels) + 1)
)
"""Every convolution, in order: 3x3, padding 1, and a 2x2 max pooling before the first of each block but the first."""

KERNEL_SHAPES = {
    conv: (outputs, inputs, 3, 3)
    for conv, (inputs, outputs) in zip(
        CONVS, pairwise((3, *(channel for channels in _CHANNELS_OF_BLOCKS for channel in channels))), strict=True
    )
}
"""The shape of each convolution's kernel: (outputs, inputs, 3, 3)."""


def relu_of(conv: str) -> str:
    """Return the ReLU that follows a convolution: relu4_2 for conv4_2."""
    return conv.replace("conv", "relu")


LAYERS = tuple(layer for conv in CONVS for layer in (conv, relu_of(conv)))
"""Every layer that can be tapped, in order: conv1_1, relu1_1, conv1_2 ... relu5_4."""


def conv_of(layer: str) -> str:
    """Return the convolution that a layer of `LAYERS` ends with: conv4_2 for relu4_2."""
    return layer.replace("relu", "conv")


def channels_of(layer: str) -> int:
    """Return the number of channels of a layer: 64 to 512."""
    return KERNEL_SHAPES[conv_of(layer)][0]


def block_of(layer: str) -> int:
    """Return the block of a layer, 1 to 5; its features are 2 ** (block - 1) times smaller than the picture."""
    return int(layer[len("conv")])


def opens_block(conv: str) -> bool:
    """Return whether a 2x2 max pooling stands before a convolution."""
    return block_of(conv) > 1 and conv.endswith("_1")


def convs_through(layers: Collection[str]) -> tuple[str, ...]:
    """Return the convolutions that run to compute these layers: all up to the last one of them."""
    last = max(CONVS.index(conv_of(layer)) for layer in layers)
    return CONVS[: last + 1]


def features_shape(size: Size, layer: str) -> Shape:
    """Return the height and width of a layer's features for a picture: halved at every pooling, rounded up."""
    poolings = block_of(layer) - 1
    return Shape(-(-size.height >> poolings), -(-size.width >> poolings))


def minimum_edge(layers: Collection[str]) -> int:
    """Return the shortest picture edge in pixels that fills at least one feature at each of the layers."""
    return 1 << (max(block_of(layer) for layer in layers) - 1)
