"""The optimisers on problems whose solution is known."""

from collections.abc import Callable

import pytest
import torch
from nst_service.engine.criterion import Evaluation
from nst_service.engine.optimizers import LBFGS, Adam, Optimizer
from torch import Tensor

_SHAPE = (1, 3, 8, 8)


def towards(target: Tensor, curvature: Tensor) -> Callable[[Tensor], Evaluation]:
    """Return a quadratic function with its minimum at a target."""

    def evaluate(pixels: Tensor) -> Evaluation:
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        gradient = curvature * (pixels - target)
        return Evaluation(
            pixels=pixels, loss=(gradient * (pixels - target)).sum().item() / 2, terms={}, gradient=gradient
        )

    return evaluate


@pytest.fixture
def noise() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda pixels: LBFGS(pixels, learning_rate=1.0, history=10), 60),
        (lambda pixels: Adam(pixels, learning_rate=0.05), 400),
    ],
)
def test_the_best_picture_that_can_be_shown_is_found(
    make: Callable[[Tensor], Optimizer], steps: int, noise: torch.Generator
):
    # A third of it is out of reach, and no two pixels are equally steep.
    target = torch.empty(_SHAPE).uniform_(-0.5, 1.5, generator=noise)
    curvature = torch.empty(_SHAPE).uniform_(0.5, 5.0, generator=noise)
    optimizer = make(torch.full(_SHAPE, 0.5))
    for _ in range(steps):
        last = optimizer.step(towards(target, curvature))
    assert torch.allclose(last.pixels, target.clamp(0, 1), atol=0.02)


def test_pixels_at_the_border_come_back_when_the_gradient_turns():
    optimizer = LBFGS(torch.full(_SHAPE, 0.5), learning_rate=1.0, history=10)
    for _ in range(20):
        optimizer.step(towards(torch.full(_SHAPE, 2.0), torch.ones(_SHAPE)))
    for _ in range(60):
        last = optimizer.step(towards(torch.full(_SHAPE, 0.25), torch.ones(_SHAPE)))
    assert torch.allclose(last.pixels, torch.full(_SHAPE, 0.25), atol=0.02)
