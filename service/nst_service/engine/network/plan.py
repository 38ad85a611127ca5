"""The plan of VGG-19: the steps that compute some of its layers, and the memory that each of them takes.

`Vgg19` executes a plan, and `engine.memory.footprint` sums the bytes of its steps. So a change of what a step keeps for
the backward pass, or of what it holds while it runs, is a change of the operation itself and of this module only.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.bands import band_share
from nst_service.engine.network.layers import (
    CONVS,
    KERNEL_SHAPES,
    channels_of,
    convs_through,
    features_shape,
    opens_block,
    relu_of,
)
from nst_service.engine.network.native import Epilogue
from nst_service.engine.network.pooling import pooling_epilogue
from nst_service.engine.sizes import Size, halved

_FLOAT_BYTES, _INDEX_BYTES, _BITS_BYTES = 4, 8, 2


class Variant(NamedTuple):
    """How the frozen weights are applied."""

    pooling: Pooling = Pooling.MAX
    padding: Padding = Padding.ZERO


REFERENCE_VARIANT = Variant()
"""The network as it was trained."""


class Kept(Enum):
    """Tensors that a step keeps for the backward pass."""

    CONVOLVED = auto()
    """The outputs of the convolution, float32."""
    RECTIFIED = auto()
    """The outputs of its ReLU, float32."""
    RELU_BITS = auto()
    """A bit for each output that says whether it passed the ReLU: an int16 for each channel of a 4x4 tile."""
    MAX_POSITIONS = auto()
    """The place of the maximum in each window of a max pooling, int64."""
    SQUARES = auto()
    """What an L2 pooling keeps of each window, float32: the squares of its four features, their mean and its root, and
    one value that is not freed at once."""


@dataclass(frozen=True, slots=True)
class ConvolutionStep:
    """A convolution, its ReLU, and the pooling that may follow."""

    conv: str
    """The name of the convolution."""
    taps: frozenset[str]
    """The layers that are visited: the convolution, its ReLU, both or none."""
    pooling: Pooling | None
    """The pooling after the ReLU; None where no pooling follows."""
    epilogue: Epilogue | None
    """The ReLU and the pooling, where the native kernel does both in the same call as the convolution, so that only
    pooled features are ever in memory. None where they come after it."""
    kept: frozenset[Kept]
    """The tensors that are kept for the backward pass."""

    def kept_bytes(self, size: Size) -> int:
        """Return the bytes that the step keeps for the backward pass of a picture."""
        return sum(self._bytes_of(kept, size) for kept in self.kept)

    def output_bytes(self, size: Size) -> int:
        """Return the bytes of the convolution's outputs for a picture."""
        return activation_bytes(size, self.conv)

    def forward_bytes(self, size: Size) -> int:
        """Return the bytes of what goes into the step and of what comes out of it, pooled where it pools."""
        height, width = features_shape(size, self.conv)
        inputs = _FLOAT_BYTES * KERNEL_SHAPES[self.conv][1] * height * width
        return inputs + (self.output_bytes(size) if self.pooling is None else self.pooled_bytes(size))

    def working_bytes(self, size: Size) -> int:
        """Return the most bytes that the step holds in either direction, beside what all steps keep."""
        working = self.forward_bytes(size)
        if self.pooling is not None and self.epilogue is None:
            working += self.output_bytes(size)
        if self.taps:
            working += round(band_share(size.height) * self.output_bytes(size))
        return working

    def pooled_bytes(self, size: Size) -> int:
        """Return the bytes of the pooled features for a picture."""
        return _FLOAT_BYTES * self._windows(size)

    def _windows(self, size: Size) -> int:
        return channels_of(self.conv) * math.prod(halved(features_shape(size, self.conv)))

    def _bytes_of(self, kept: Kept, size: Size) -> int:
        match kept:
            case Kept.CONVOLVED | Kept.RECTIFIED:
                return self.output_bytes(size)
            case Kept.RELU_BITS:
                winograd_tiles = halved(halved(features_shape(size, self.conv)))
                return _BITS_BYTES * channels_of(self.conv) * math.prod(winograd_tiles)
            case Kept.MAX_POSITIONS:
                return _INDEX_BYTES * self._windows(size)
            case Kept.SQUARES:
                return 7 * _FLOAT_BYTES * self._windows(size)


@dataclass(frozen=True, slots=True)
class PairStep:
    """The convolutions before the first pooling, in bands of rows, so that what is between them is never whole."""

    first: ConvolutionStep
    """The first convolution, of which only the ReLU may be tapped."""
    second: ConvolutionStep
    """The second convolution, which is not tapped."""
    epilogue: Epilogue
    """The ReLU and the pooling after the second convolution."""

    @property
    def tap(self) -> str | None:
        """The layer between the convolutions, if it is visited."""
        return next(iter(self.first.taps), None)

    def kept_bytes(self, size: Size) -> int:
        """Return the bytes that the step keeps for the backward pass of a picture."""
        return self.second.kept_bytes(size)

    def working_bytes(self, size: Size) -> int:
        """Return the most bytes that the step holds in either direction, beside what all steps keep."""
        # Of a band the features, the gradient with respect to them, and what a loss adds to it.
        band = round(3 * band_share(size.height) * self.first.output_bytes(size))
        return band + self.second.pooled_bytes(size)


Step = ConvolutionStep | PairStep


def plan(layers: Collection[str], variant: Variant, backend: Backend) -> tuple[ConvolutionStep, ...]:
    """Return the steps that compute layers, each of them as a whole; nothing beyond the last layer is computed.

    Args:
        layers: the layers to visit, names out of `LAYERS`; at least one.
        variant: how the weights are applied.
        backend: the implementation of the convolutions.
    """
    convs = convs_through(layers)
    is_pooled = (*map(opens_block, convs[1:]), False)
    return tuple(
        _step(conv, layers, variant.pooling if pools else None, backend)
        for conv, pools in zip(convs, is_pooled, strict=True)
    )


def plan_in_bands(layers: Collection[str], variant: Variant, backend: Backend) -> tuple[Step, ...]:
    """Return the same steps, with the first two as one that works in bands where the native kernel can do that."""
    steps = plan(layers, variant, backend)
    match steps:
        case first, second, *rest if second.epilogue is not None and first.conv not in first.taps:
            return PairStep(first, second, second.epilogue), *rest
        case _:
            return steps


def activation_bytes(size: Size, layer: str) -> int:
    """Return the bytes of a layer's features for a picture, float32."""
    return _FLOAT_BYTES * channels_of(layer) * math.prod(features_shape(size, layer))


def _step(conv: str, layers: Collection[str], pooling: Pooling | None, backend: Backend) -> ConvolutionStep:
    taps = frozenset({conv, relu_of(conv)} & set(layers))
    epilogue = None
    if pooling is not None and not taps and backend is Backend.NATIVE:
        epilogue = pooling_epilogue(pooling)
    return ConvolutionStep(conv, taps, pooling, epilogue, frozenset(_kept(conv, taps, pooling, epilogue, backend)))


def _kept(
    conv: str, taps: Collection[str], pooling: Pooling | None, epilogue: Epilogue | None, backend: Backend
) -> Iterator[Kept]:
    if conv in taps:
        yield Kept.CONVOLVED
    match backend:
        case Backend.TORCH:
            yield Kept.RECTIFIED
            if pooling is Pooling.MAX:
                yield Kept.MAX_POSITIONS
        case Backend.NATIVE:
            # The native kernel notes no bits where it convolves few inputs.
            notes_bits = conv != CONVS[0]
            if notes_bits:
                yield Kept.RELU_BITS
            is_pooled_later = pooling is not None and epilogue is None
            if relu_of(conv) in taps or is_pooled_later or not (notes_bits or taps):
                yield Kept.RECTIFIED
    if pooling is Pooling.L2:
        yield Kept.SQUARES
