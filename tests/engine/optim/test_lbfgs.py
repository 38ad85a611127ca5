import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from nst_service.engine.objective.evaluation import Evaluation
from nst_service.engine.optim.lbfgs import LBFGS
from nst_service.engine.optim.preconditioner import FourierPreconditioner
from torch import Tensor

from tests.engine.optim.builders import SHAPE, quadratic, spoilt, towards


def test_pixels_at_the_border_come_back_when_the_gradient_turns():
    optimizer = LBFGS(torch.full(SHAPE, 0.5), learning_rate=1.0, history=10)
    for _ in range(20):
        optimizer.step(towards(torch.full(SHAPE, 2.0), torch.ones(SHAPE)))
    for _ in range(60):
        optimizer.step(towards(torch.full(SHAPE, 0.25), torch.ones(SHAPE)))
    assert torch.allclose(optimizer.accepted.pixels, torch.full(SHAPE, 0.25), atol=0.02)


def test_a_gradient_that_is_not_finite_counts_as_a_loss_that_is_not():
    optimizer = LBFGS(torch.ones(SHAPE), learning_rate=1.0, history=5)
    optimizer.step(quadratic)
    first, gradient = optimizer.accepted, torch.full(SHAPE, math.nan)
    optimizer.step(lambda pixels: dataclasses.replace(quadratic(pixels), gradient=gradient))
    assert optimizer.accepted is first


def test_a_step_that_raises_the_loss_is_tried_again_at_a_quarter_of_its_length():
    optimizer = LBFGS(torch.full(SHAPE, 0.5), learning_rate=1.0, history=5)
    optimizer.step(quadratic)
    first, lengths = optimizer.accepted, []
    for _ in range(3):
        optimizer.step(lambda pixels: lengths.append((pixels - first.pixels).norm().item()) or spoilt(1e9)(pixels))
    assert lengths[1:] == pytest.approx([lengths[0] / 4, lengths[0] / 16], rel=1e-3)


def two_loops(pairs: list[tuple[Tensor, Tensor]], gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
    """Algorithm 7.4 of Nocedal & Wright as it is printed, in double precision."""
    q, alphas = gradient.double(), []
    for s, y in reversed(pairs):
        alphas.append((s * q).sum() / (s * y).sum())
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = precondition(q) * (s * y).sum() / (y * precondition(y)).sum()
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - (y * r).sum() / (s * y).sum())
    return -r


@pytest.mark.parametrize("steps", [2, 5, 9])
def test_the_direction_is_that_of_the_two_loops(steps: int):
    noise = torch.Generator().manual_seed(1)
    curvature = torch.empty(SHAPE).uniform_(0.5, 5.0, generator=noise)
    evaluate = towards(torch.full(SHAPE, 0.3), curvature)
    # So short that no step leaves the box or is cut.
    optimizer = LBFGS(torch.empty(SHAPE).uniform_(0.4, 0.6, generator=noise), learning_rate=0.2, history=4)
    seen = []

    def noted(pixels: Tensor) -> Evaluation:
        seen.append(evaluate(pixels))
        return seen[-1]

    for _ in range(steps):
        optimizer.step(noted)
    pairs = [
        ((after.pixels - before.pixels).double(), (after.gradient - before.gradient).double())
        for before, after in itertools.pairwise(seen)
    ][-4:]
    expected = two_loops(pairs, seen[-1].gradient, FourierPreconditioner(seen[-1].pixels.double()))
    taken = (optimizer.state().next - seen[-1].pixels) / 0.2
    assert (taken - expected).norm() < 1e-4 * expected.norm()


def test_without_its_history_an_optimiser_goes_on_along_the_gradient():
    optimizer = LBFGS(torch.ones(SHAPE), learning_rate=1.0, history=5)
    for _ in range(4):
        optimizer.step(quadratic)
    state = optimizer.state(history=False)
    assert state.pairs == ()
    assert torch.equal(state.next, optimizer.state().next)
    LBFGS.restored(state, learning_rate=1.0, history=5).step(quadratic)
