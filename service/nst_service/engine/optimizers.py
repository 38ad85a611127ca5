"""Optimisers of pixels: one evaluation of the objective per step, and a state that can be saved and restored."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.criterion import Evaluation
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.preconditioner import FourierPreconditioner

Evaluate = Callable[[Tensor], Evaluation]
"""Evaluates the objective at pixels (1, 3, H, W)."""

MAX_CONSECUTIVE_NON_FINITE = 3
"""Evaluations in a row that may be infinite or undefined before an optimiser gives up."""


class Pair(NamedTuple):
    """What L-BFGS has learnt from a step."""

    change: Tensor
    """Of the pixels, (1, 3, H, W)."""
    gradient_change: Tensor
    """(1, 3, H, W)."""
    inverse: float
    """Of their product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGSState:
    """Where L-BFGS stands after a step."""

    accepted: Evaluation
    """What it stands on."""
    next: Tensor
    """Where it evaluates next, (1, 3, H, W)."""
    pairs: tuple[Pair, ...]
    """Oldest first."""
    backtracks: int
    """Steps taken back in a row."""
    non_finite: int
    """Evaluations in a row that were not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamState:
    """Where Adam stands after a step."""

    accepted: Evaluation
    """What it stands on."""
    next: Tensor
    """Where it evaluates next, (1, 3, H, W)."""
    learning_rate: float
    """Halved by every step that was taken back."""
    steps: float
    """That the moments are made of; a whole number."""
    moment: Tensor
    """Moving average of the gradient, (1, 3, H, W)."""
    square_moment: Tensor
    """Moving average of its square, (1, 3, H, W)."""
    non_finite: int
    """Evaluations in a row that were not finite."""


OptimizerState = LBFGSState | AdamState


class Optimizer(Protocol):
    """Changes pixels in [0, 1] step by step so that a loss falls."""

    def step(self, evaluate: Evaluate) -> Evaluation:
        """Evaluate once, and decide where to evaluate next.

        Returns:
            The evaluation that the optimiser stands on: the new one, or an earlier one where the new one was rejected.

        Raises:
            NonFiniteLossError: the loss was not finite three times in a row.
        """

    def moved(self, pixels: Tensor) -> "Optimizer":
        """Return an optimiser that starts at pixels of another size with what this one has learnt."""

    def state(self) -> OptimizerState:
        """Return all that `restored` needs to go on exactly after the last step; later ones do not change it."""


class LBFGS:
    """Limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", algorithm 7.4) without a line search.

    Its first inverse Hessian is a preconditioner in the Fourier domain, scaled as in their equation 7.20: it reaches
    the same loss with about a fifth less evaluations.

    It looks for the best picture that can be shown: no pixel leaves [0, 1]. A step that would go further is projected
    onto the box, and pixels at its border that the gradient pushes outwards take no part (Bertsekas, "Projected Newton
    methods for optimization problems with simple constraints", SIAM J. Control Optim. 1982). Other programs clamp the
    picture when they are done, and lose there a part of what they have won.

    The plain step of length one needs no line search near a minimum, but far from it can raise the loss by orders of
    magnitude. Three guards keep it safe and cost nothing where they are not needed: the first step, which knows no
    curvature, changes pixels by a fixed small amount; no step changes them by more than a fixed large amount; and a
    step that raises the loss by a tenth or more is taken back and tried again at a quarter of its length.
    """

    FIRST_STEP_RMS = 0.01
    """Root mean square of the pixel change of a step along the plain gradient."""
    MAX_STEP_RMS = 0.1
    """The most that a step may change pixels, root mean square."""
    MAX_GROWTH = 1.1
    """Factor on the loss beyond which a step is taken back."""
    BACKTRACK = 0.25
    """Factor on the length of a step that was taken back."""
    MAX_BACKTRACKS = 3
    """Steps taken back in a row before the curvature is forgotten."""
    MIN_CURVATURE = 1e-10
    """Cosine between the change of pixels and that of the gradient below which a pair says nothing on curvature."""

    def __init__(self, pixels: Tensor, *, learning_rate: float, history: int):
        """Start at pixels (1, 3, H, W).

        Args:
            pixels: where to start.
            learning_rate: factor on every step.
            history: number of past steps that approximate the curvature.
        """
        self._next = pixels
        self._learning_rate = learning_rate
        self._history = history
        self._precondition = FourierPreconditioner(pixels)
        self._pairs: deque[Pair] = deque(maxlen=history)
        self._accepted: Evaluation | None = None
        self._backtracks = 0
        self._non_finite = 0

    def step(self, evaluate: Evaluate) -> Evaluation:
        """Evaluate once, and decide where to evaluate next (see `Optimizer.step`)."""
        trial = evaluate(self._next)
        accepted = self._accepted
        if accepted is None:
            if not _is_finite(trial):
                raise NonFiniteLossError("the loss of the first picture is not finite")
        elif not (_is_finite(trial) and trial.loss <= self.MAX_GROWTH * accepted.loss):
            self._take_back(accepted, finite=_is_finite(trial))
            return accepted
        else:
            self._remember(trial.pixels - accepted.pixels, trial.gradient - accepted.gradient)
        self._backtracks = self._non_finite = 0
        self._accepted = trial
        self._advance(trial, 1.0)
        return trial

    def _take_back(self, accepted: Evaluation, *, finite: bool) -> None:
        self._backtracks += 1
        self._non_finite = 0 if finite else self._non_finite + 1
        if self._non_finite >= MAX_CONSECUTIVE_NON_FINITE:
            raise NonFiniteLossError(f"the loss was not finite {self._non_finite} times in a row")
        if self._backtracks > self.MAX_BACKTRACKS:
            self._pairs.clear()
        self._advance(accepted, self.BACKTRACK**self._backtracks)

    def _remember(self, change: Tensor, gradient_change: Tensor) -> None:
        product = _dot(change, gradient_change)
        norms = math.sqrt(_dot(change, change) * _dot(gradient_change, gradient_change))
        if product > self.MIN_CURVATURE * norms:
            self._pairs.append(Pair(change, gradient_change, 1 / product))

    def _advance(self, origin: Evaluation, length: float) -> None:
        free = _free(origin)
        direction = self._direction(origin.gradient * free) * free
        length *= self._learning_rate
        rms = direction.square().mean().sqrt().item()
        if rms > 0 and not self._pairs:
            length *= self.FIRST_STEP_RMS / rms
        elif length * rms > self.MAX_STEP_RMS:
            length = self.MAX_STEP_RMS / rms
        self._next = (origin.pixels + length * direction).clamp_(0, 1)

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return minus the gradient, multiplied by the approximate inverse Hessian (the two-loop recursion)."""
        if not self._pairs:
            return -self._precondition(gradient)
        direction = -gradient
        alphas = []
        for change, gradient_change, inverse in reversed(self._pairs):
            alpha = inverse * _dot(change, direction)
            direction -= alpha * gradient_change
            alphas.append(alpha)
        _, gradient_change, inverse = self._pairs[-1]
        direction = self._precondition(direction)
        direction /= inverse * _dot(gradient_change, self._precondition(gradient_change))
        for (change, gradient_change, inverse), alpha in zip(self._pairs, reversed(alphas), strict=True):
            beta = inverse * _dot(gradient_change, direction)
            direction += (alpha - beta) * change
        return direction

    def moved(self, pixels: Tensor) -> "LBFGS":
        """Return an optimiser that starts at pixels of another size with the curvature known so far."""
        moved = LBFGS(pixels, learning_rate=self._learning_rate, history=self._history)
        for change, gradient_change, _ in self._pairs:
            moved._remember(_resized(change, pixels), _resized_gradient(gradient_change, pixels))
        return moved

    def state(self) -> LBFGSState:
        """Return where it stands (see `Optimizer.state`): nothing of that is ever changed in place."""
        assert self._accepted is not None
        return LBFGSState(
            accepted=self._accepted,
            next=self._next,
            pairs=tuple(self._pairs),
            backtracks=self._backtracks,
            non_finite=self._non_finite,
        )

    @classmethod
    def restored(cls, state: LBFGSState, *, learning_rate: float, history: int) -> "LBFGS":
        """Return an optimiser that goes on from a state, with the arguments of the one that it is of."""
        restored = cls(state.next, learning_rate=learning_rate, history=history)
        restored._pairs.extend(state.pairs)
        restored._accepted = state.accepted
        restored._backtracks = state.backtracks
        restored._non_finite = state.non_finite
        return restored


class Adam:
    """Adam (Kingma & Ba, 2015), as torch has it, on pixels that stay in [0, 1].

    A step to a loss that is not finite is taken back and halved.
    """

    BACKTRACK = 0.5
    """Factor on the learning rate after a step that was taken back."""

    def __init__(self, pixels: Tensor, *, learning_rate: float):
        """Start at pixels (1, 3, H, W).

        Args:
            pixels: where to start.
            learning_rate: about the largest change of a pixel in one step, on the 0..1 scale.
        """
        self._pixels = pixels.detach().clone()
        self._adam = torch.optim.Adam([self._pixels], lr=learning_rate)
        self._accepted: Evaluation | None = None
        self._non_finite = 0

    def step(self, evaluate: Evaluate) -> Evaluation:
        """Evaluate once, and decide where to evaluate next (see `Optimizer.step`)."""
        # Adam changes pixels in place, and an evaluation must keep its own.
        trial = evaluate(self._pixels.clone())
        if _is_finite(trial):
            self._non_finite = 0
            self._accepted = trial
        else:
            self._non_finite += 1
            if self._accepted is None or self._non_finite >= MAX_CONSECUTIVE_NON_FINITE:
                raise NonFiniteLossError(f"the loss was not finite {self._non_finite} times in a row")
            self._pixels.copy_(self._accepted.pixels)
            self._adam.param_groups[0]["lr"] *= self.BACKTRACK
        self._pixels.grad = self._accepted.gradient
        self._adam.step()
        self._pixels.clamp_(0, 1)
        return self._accepted

    def moved(self, pixels: Tensor) -> "Adam":
        """Return an optimiser that starts at pixels of another size with the moments of the gradient known so far."""
        moved = Adam(pixels, learning_rate=self._adam.param_groups[0]["lr"])
        state = self._adam.state[self._pixels]
        moved._begin_with(
            state["step"].item(),
            _resized_gradient(state["exp_avg"], pixels),
            # Interpolated as the root that it is used as: never below zero.
            _resized_gradient(state["exp_avg_sq"].sqrt(), pixels).square(),
        )
        return moved

    def state(self) -> AdamState:
        """Return where it stands (see `Optimizer.state`): copies of what torch changes in place."""
        assert self._accepted is not None
        state = self._adam.state[self._pixels]
        return AdamState(
            accepted=self._accepted,
            next=self._pixels.clone(),
            learning_rate=self._adam.param_groups[0]["lr"],
            steps=state["step"].item(),
            moment=state["exp_avg"].clone(),
            square_moment=state["exp_avg_sq"].clone(),
            non_finite=self._non_finite,
        )

    @classmethod
    def restored(cls, state: AdamState) -> "Adam":
        """Return an optimiser that goes on from a state."""
        restored = cls(state.next, learning_rate=state.learning_rate)
        restored._begin_with(state.steps, state.moment.clone(), state.square_moment.clone())
        restored._accepted = state.accepted
        restored._non_finite = state.non_finite
        return restored

    def _begin_with(self, steps: float, moment: Tensor, square_moment: Tensor) -> None:
        """Take on moments of the gradient, to be changed in place."""
        self._adam.state[self._pixels] = {
            "step": torch.tensor(steps),
            "exp_avg": moment,
            "exp_avg_sq": square_moment,
        }


def _is_finite(evaluation: Evaluation) -> bool:
    return math.isfinite(evaluation.loss) and bool(evaluation.gradient.isfinite().all())


def _free(evaluation: Evaluation) -> Tensor:
    """Return 1 where a step down the gradient keeps a pixel in [0, 1], and 0 where it is at the border already."""
    pixels, gradient = evaluation.pixels, evaluation.gradient
    is_held = ((pixels <= 0) & (gradient > 0)) | ((pixels >= 1) & (gradient < 0))
    return (~is_held).to(gradient.dtype)


def _resized(picture: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(picture, like.shape[-2:], mode="bilinear", align_corners=False)


def _resized_gradient(gradient: Tensor, like: Tensor) -> Tensor:
    """Return a gradient at another size: the more pixels share an influence, the less each has."""
    return _resized(gradient, like) * (gradient.numel() / like.numel())


def _dot(left: Tensor, right: Tensor) -> float:
    return torch.dot(left.flatten(), right.flatten()).item()
