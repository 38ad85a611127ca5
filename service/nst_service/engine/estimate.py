"""What a transfer will cost, before it runs."""

import math
from dataclasses import dataclass

from nst_service.engine.layers import KERNEL_SHAPES, block_of, convs_through, minimum_edge, opens_block
from nst_service.engine.options import LayerWeights, OptimizerName, TransferOptions
from nst_service.engine.pictures import Size, fit
from nst_service.engine.spec import TransferSpec

_FLOAT_BYTES = 4
_POOL_INDEX_BYTES = 8
_SAFETY = 1.15
"""Factor for what the formula leaves out: workspaces of convolutions, fragmentation."""
_PICTURES = 8
"""Pictures that an optimiser holds at once, beside the history of L-BFGS: pixels, gradients, the best so far ..."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a transfer will cost."""

    target_flops: float
    """Operations before the first step."""
    step_flops: float
    """Operations of one step: the objective and its gradient."""
    steps: int
    peak_bytes: int
    """The most memory that is held on the device at once, the weights of the network not counted."""

    @property
    def flops(self) -> float:
        """Operations in all."""
        return self.target_flops + self.steps * self.step_flops


def estimate(spec: TransferSpec) -> Cost:
    """Estimate what a transfer will cost."""
    options = spec.options
    target_flops = sum(forward_flops(style.size, options.active_style_layers) for style, _ in spec.styles)
    target_flops += forward_flops(spec.content.size, options.active_content_layers)
    return Cost(
        target_flops=target_flops,
        step_flops=2 * forward_flops(spec.content.size, options.active_layers),
        steps=options.iterations,
        peak_bytes=peak_bytes(options, spec.content.size, [style.size for style, _ in spec.styles]),
    )


def forward_flops(size: Size, layers: LayerWeights | frozenset[str]) -> float:
    """Return the operations of all convolutions up to the last of the layers; the gradient costs as much again."""
    if not layers:
        return 0
    return sum(2.0 * math.prod(KERNEL_SHAPES[conv]) * _area(size, conv) for conv in convs_through(tuple(layers)))


def peak_bytes(options: TransferOptions, size: Size, styles: list[Size]) -> int:
    """Estimate the most memory that a transfer holds on its device at once, in bytes."""
    layers = options.active_layers
    convs = convs_through(layers)
    # Every activation is kept for the gradient; where a convolution is tapped, its ReLU is a second copy.
    activations = sum(
        _activation_bytes(size, conv) * (2 if conv in layers else 1)
        + (_FLOAT_BYTES + _POOL_INDEX_BYTES) * KERNEL_SHAPES[conv][1] * _area(size, conv) * opens_block(conv)
        for conv in convs
    )
    # On the way back, the gradient of a layer's output and of its input are held together.
    gradients = 2 * max(_activation_bytes(size, conv) for conv in convs)
    picture = 3 * size[0] * size[1] * _FLOAT_BYTES
    history = 2 * options.lbfgs_history if options.optimizer is OptimizerName.LBFGS else 0
    optimizing = activations + gradients + (_PICTURES + history) * picture
    # Targets keep no graph: two activations at a time.
    targets = max((2 * _activation_bytes(style, convs[0]) for style in styles), default=0)
    return round(_SAFETY * max(optimizing, targets))


def largest_size_within(available: int, options: TransferOptions, size: Size) -> int:
    """Return the largest longest edge of a picture of this shape whose transfer fits into the memory, in pixels.

    0 where not even the smallest picture fits.
    """
    low, high = 0, max(size)
    while low < high:
        edge = (low + high + 1) // 2
        scaled = fit(size, edge)
        if peak_bytes(options, scaled, [scaled]) <= available:
            low = edge
        else:
            high = edge - 1
    return low if low >= minimum_edge(options.active_layers) else 0


def _area(size: Size, conv: str) -> int:
    shrink = 1 << (block_of(conv) - 1)
    return math.ceil(size[0] / shrink) * math.ceil(size[1] / shrink)


def _activation_bytes(size: Size, conv: str) -> int:
    return _FLOAT_BYTES * KERNEL_SHAPES[conv][0] * _area(size, conv)
