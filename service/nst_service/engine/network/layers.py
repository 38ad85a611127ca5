"""The architecture of VGG-19 (Simonyan & Zisserman, 2014, configuration E): names and shapes of its layers."""

from collections.abc import Collection, Sequence
from itertools import pairwise

from nst_service.engine.sizes import Size

Window = tuple[slice, slice]
"""Rows and columns of a layer's features that a part covers."""

WHOLE: Window = (slice(None), slice(None))

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
"""Shape of each convolution's kernel: (outputs, inputs, 3, 3)."""


def relu_of(conv: str) -> str:
    """Return the ReLU that follows a convolution: relu4_2 for conv4_2."""
    return conv.replace("conv", "relu")


LAYERS = tuple(layer for conv in CONVS for layer in (conv, relu_of(conv)))
"""Every layer that can be tapped, in order: conv1_1, relu1_1, conv1_2 ... relu5_4."""


def conv_of(layer: str) -> str:
    """Return the convolution that a layer of `LAYERS` ends with: conv4_2 for relu4_2."""
    return layer.replace("relu", "conv")


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


def pooled_convs(convs: Sequence[str]) -> dict[str, str]:
    """Return those of successive convolutions that a pooling follows, each with the one after the pooling."""
    return {conv: following for conv, following in pairwise(convs) if opens_block(following)}


def opening_pair(layers: Collection[str]) -> tuple[str, str] | None:
    """Return the convolutions before the first pooling, where one follows and only the ReLU between them is tapped."""
    convs = convs_through(layers)
    first, second = CONVS[:2]
    if len(convs) > 2 and {first, second, relu_of(second)}.isdisjoint(layers):
        return first, second
    return None


def features_size(size: Size, layer: str) -> Size:
    """Return how many features of a layer lie along both edges of a picture: halved at every pooling, rounded up."""
    poolings = block_of(layer) - 1
    return Size(-(-size.width >> poolings), -(-size.height >> poolings))


def minimum_edge(layers: Collection[str]) -> int:
    """Return the shortest picture edge in pixels that fills at least one feature at each of the layers."""
    return 1 << (max(block_of(layer) for layer in layers) - 1)
