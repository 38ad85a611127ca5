"""The optimisers on problems whose solution is known."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.objective.criterion import Evaluation, Values
from nst_service.engine.objective.losses import LossKind, Term
from nst_service.engine.optim.optimizers import LBFGS, Adam, LBFGSState, Optimizer
from nst_service.engine.optim.preconditioner import FourierPreconditioner
from torch import Tensor

TERM = Term(LossKind.CONTENT, "relu1_1")
_SHAPE = (1, 3, 8, 8)


def towards(target: Tensor, curvature: Tensor) -> Callable[[Tensor], Evaluation]:
    """Return a quadratic function with its minimum at a target."""

    def evaluate(pixels: Tensor) -> Evaluation:
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        gradient = curvature * (pixels - target)
        loss = (gradient * (pixels - target)).sum() / 2
        return Evaluation(pixels=pixels, gradient=gradient, terms=(TERM,), values=Values(loss[None]))

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
        optimizer.step(towards(target, curvature))
    assert torch.allclose(optimizer.accepted.pixels, target.clamp(0, 1), atol=0.02)


def test_pixels_at_the_border_come_back_when_the_gradient_turns():
    optimizer = LBFGS(torch.full(_SHAPE, 0.5), learning_rate=1.0, history=10)
    for _ in range(20):
        optimizer.step(towards(torch.full(_SHAPE, 2.0), torch.ones(_SHAPE)))
    for _ in range(60):
        optimizer.step(towards(torch.full(_SHAPE, 0.25), torch.ones(_SHAPE)))
    assert torch.allclose(optimizer.accepted.pixels, torch.full(_SHAPE, 0.25), atol=0.02)


def quadratic(pixels: Tensor) -> Evaluation:
    return towards(torch.zeros(_SHAPE), torch.full(_SHAPE, 2.0))(pixels)


def spoilt(value: float) -> Callable[[Tensor], Evaluation]:
    """Return the same function with a loss that is not finite."""
    return lambda pixels: dataclasses.replace(quadratic(pixels), values=Values(torch.tensor([value])))


MAKERS = pytest.mark.parametrize(
    "make",
    [lambda pixels: LBFGS(pixels, learning_rate=1.0, history=5), lambda pixels: Adam(pixels, learning_rate=0.05)],
    ids=["lbfgs", "adam"],
)


@MAKERS
def test_a_step_to_a_loss_that_is_not_finite_is_taken_back(make: Callable[[Tensor], Optimizer]):
    optimizer = make(torch.ones(_SHAPE))
    optimizer.step(quadratic)
    first = optimizer.accepted
    optimizer.step(spoilt(math.nan))
    optimizer.verify()
    assert optimizer.accepted is first
    optimizer.step(quadratic)
    assert optimizer.accepted.loss < first.loss


@MAKERS
def test_three_losses_that_are_not_finite_are_too_many(make: Callable[[Tensor], Optimizer]):
    optimizer = make(torch.ones(_SHAPE))
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
    optimizer = make(torch.ones(_SHAPE))
    optimizer.step(spoilt(math.nan))
    with pytest.raises(NonFiniteLossError):
        optimizer.verify()


def test_a_gradient_that_is_not_finite_counts_as_a_loss_that_is_not():
    optimizer = LBFGS(torch.ones(_SHAPE), learning_rate=1.0, history=5)
    optimizer.step(quadratic)
    first, gradient = optimizer.accepted, torch.full(_SHAPE, math.nan)
    optimizer.step(lambda pixels: dataclasses.replace(quadratic(pixels), gradient=gradient))
    assert optimizer.accepted is first


def test_a_step_that_raises_the_loss_is_tried_again_at_a_quarter_of_its_length():
    optimizer = LBFGS(torch.full(_SHAPE, 0.5), learning_rate=1.0, history=5)
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
def test_the_direction_is_that_of_the_two_loops(steps: int, noise: torch.Generator):
    curvature = torch.empty(_SHAPE).uniform_(0.5, 5.0, generator=noise)
    evaluate = towards(torch.full(_SHAPE, 0.3), curvature)
    # So short that no step leaves the box or is cut.
    optimizer = LBFGS(torch.empty(_SHAPE).uniform_(0.4, 0.6, generator=noise), learning_rate=0.2, history=4)
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


@MAKERS
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_an_optimiser_goes_on_from_a_saved_state(make: Callable[[Tensor], Optimizer], steps: int):
    one = make(torch.ones(_SHAPE))
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


def test_without_its_history_an_optimiser_goes_on_along_the_gradient():
    optimizer = LBFGS(torch.ones(_SHAPE), learning_rate=1.0, history=5)
    for _ in range(4):
        optimizer.step(quadratic)
    state = optimizer.state(history=False)
    assert state.pairs == ()
    assert torch.equal(state.next, optimizer.state().next)
    LBFGS.restored(state, learning_rate=1.0, history=5).step(quadratic)
