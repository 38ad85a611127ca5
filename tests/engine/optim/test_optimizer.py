"""The optimisers on problems whose solution is known."""

import math
from collections.abc import Callable

import pytest
import torch
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.optim.adam import Adam
from nst_service.engine.optim.lbfgs import LBFGS, LBFGSState
from nst_service.engine.optim.optimizer import Optimizer
from torch import Tensor

from tests.engine.optim.builders import SHAPE, quadratic, spoilt, towards

MAKERS = pytest.mark.parametrize(
    "make",
    [lambda pixels: LBFGS(pixels, learning_rate=1.0, history=5), lambda pixels: Adam(pixels, learning_rate=0.05)],
    ids=["lbfgs", "adam"],
)


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda pixels: LBFGS(pixels, learning_rate=1.0, history=10), 60),
        (lambda pixels: Adam(pixels, learning_rate=0.05), 400),
    ],
)
def test_the_best_picture_that_can_be_shown_is_found(make: Callable[[Tensor], Optimizer], steps: int):
    noise = torch.Generator().manual_seed(1)
    # A third of it is out of reach, and no two pixels are equally steep.
    target = torch.empty(SHAPE).uniform_(-0.5, 1.5, generator=noise)
    curvature = torch.empty(SHAPE).uniform_(0.5, 5.0, generator=noise)
    optimizer = make(torch.full(SHAPE, 0.5))
    for _ in range(steps):
        optimizer.step(towards(target, curvature))
    assert torch.allclose(optimizer.accepted.pixels, target.clamp(0, 1), atol=0.02)


@MAKERS
def test_a_step_to_a_loss_that_is_not_finite_is_taken_back(make: Callable[[Tensor], Optimizer]):
    optimizer = make(torch.ones(SHAPE))
    optimizer.step(quadratic)
    first = optimizer.accepted
    optimizer.step(spoilt(math.nan))
    optimizer.verify()
    assert optimizer.accepted is first
    assert optimizer.taken_back == 1
    optimizer.step(quadratic)
    assert optimizer.accepted.loss < first.loss
    assert optimizer.taken_back == 1


@MAKERS
def test_three_losses_that_are_not_finite_are_too_many(make: Callable[[Tensor], Optimizer]):
    optimizer = make(torch.ones(SHAPE))
    optimizer.step(quadratic)
    for _ in range(2):
        optimizer.step(spoilt(math.inf))
    optimizer.verify()
    optimizer.step(spoilt(math.inf))
    # Nobody may have looked in between.
    optimizer.step(quadratic)
    with pytest.raises(NonFiniteLossError):
        optimizer.verify()


@MAKERS
def test_a_first_loss_that_is_not_finite_is_one_too_many(make: Callable[[Tensor], Optimizer]):
    optimizer = make(torch.ones(SHAPE))
    optimizer.step(spoilt(math.nan))
    with pytest.raises(NonFiniteLossError):
        optimizer.verify()


@MAKERS
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_an_optimiser_goes_on_from_a_saved_state(make: Callable[[Tensor], Optimizer], steps: int):
    one = make(torch.ones(SHAPE))
    for _ in range(steps):
        one.step(quadratic)
    state = one.state()
    if isinstance(state, LBFGSState):
        other: Optimizer = LBFGS.restored(state, learning_rate=1.0, history=5)
    else:
        other = Adam.restored(state)
    for _ in range(7):
        for each in (one, other):
            each.step(quadratic)
        assert torch.equal(one.accepted.pixels, other.accepted.pixels)
        assert torch.equal(one.state().next, other.state().next)
