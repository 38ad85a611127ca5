"""Adam on pixels that stay in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_service.engine.objective.evaluation import Evaluation, Objective
from nst_service.engine.optim.cuda_graph import stable_evaluation, stable_tensor
from nst_service.engine.optim.guard import NonFiniteGuard
from nst_service.engine.optim.resampling import resampled_gradient
from nst_service.engine.sizes import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamState:
    """The state of Adam after a step. Snapshots are stored with the names of these fields as keys."""

    accepted: Evaluation
    """The evaluation that was accepted last."""
    next: Tensor
    """Pixels that are evaluated next, (1, 3, H, W)."""
    learning_rate: float
    """Learning rate, halved by every step that was taken back."""
    steps: int
    """Number of gradients in the moving averages."""
    moment: Tensor
    """Moving average of the gradient, (1, 3, H, W)."""
    square_moment: Tensor
    """Moving average of its square, (1, 3, H, W)."""
    non_finite: int
    """Number of evaluations in a row that were not finite."""


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on pixels that stay in [0, 1].

    A step to a loss that is not finite is taken back and halved.
    """

    BACKTRACK = 0.5
    """Factor on the learning rate after a step that was taken back."""
    DECAY, SQUARE_DECAY = 0.9, 0.999
    """Decay of the moving averages of the gradient and of its square."""
    EPSILON = 1e-8
    """Addend to the root of the square's average."""

    def __init__(self, pixels: Tensor, *, learning_rate: float):
        """Start at pixels (1, 3, H, W).

        Args:
            pixels: where to start.
            learning_rate: about the largest change of a pixel in one step, on the 0..1 scale.
        """
        self._next = pixels
        # As precise as the numbers that a stored state has.
        self._learning_rate = torch.tensor(learning_rate, dtype=torch.float64, device=pixels.device)
        self._steps = torch.tensor(0.0, dtype=torch.float64, device=pixels.device)
        self._moment = torch.zeros_like(pixels)
        self._square_moment = torch.zeros_like(pixels)
        self._guard = NonFiniteGuard(pixels)

    @property
    def accepted(self) -> Evaluation:
        """The evaluation that was accepted last (see `Optimizer.accepted`)."""
        return self._guard.accepted

    @property
    def taken_back(self) -> int:
        """The number of steps that were taken back (see `Optimizer.taken_back`)."""
        return int(self._guard.rejected)

    def step(self, objective: Objective) -> None:
        """Evaluate once, and decide where to evaluate next (see `Optimizer.step`)."""
        is_accepted = self._guard.accept_or_reject(objective(self._next))
        self._learning_rate = torch.where(is_accepted, 1.0, self.BACKTRACK) * self._learning_rate
        gradient = self.accepted.gradient
        self._steps = self._steps + 1
        self._moment = torch.lerp(gradient, self._moment, self.DECAY)
        self._square_moment = torch.lerp(gradient.square(), self._square_moment, self.SQUARE_DECAY)
        length = (self._learning_rate / (1 - self.DECAY**self._steps)).to(gradient.dtype)
        correction = (1 - self.SQUARE_DECAY**self._steps).to(gradient.dtype)
        root = (self._square_moment / correction).sqrt_().add_(self.EPSILON)
        self._next = (self.accepted.pixels - length * self._moment / root).clamp_(0, 1)

    def verify(self) -> None:
        """Raise what the steps until now have to raise (see `Optimizer.verify`)."""
        self._guard.verify()

    def tensors(self) -> Sequence[Tensor]:
        """Return what a step replaces (see `Optimizer.tensors`)."""
        moments = (self._moment, self._square_moment)
        return (self._next, self._learning_rate, self._steps, *moments, *self._guard.tensors())

    def set_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors that `tensors` returned (see `Optimizer.set_tensors`)."""
        self._next, self._learning_rate, self._steps, self._moment, self._square_moment, *guard = tensors
        self._guard.set_tensors(guard)

    def resampled(self, pixels: Tensor) -> "Adam":
        """Return an optimiser that starts at pixels of another size with the moments of the gradient known so far."""
        optimizer = Adam(pixels, learning_rate=self._learning_rate.item())
        optimizer._steps = self._steps
        optimizer._moment = resampled_gradient(self._moment, Shape.of(pixels))
        # Interpolated as the root that it is used as: never below zero.
        optimizer._square_moment = resampled_gradient(self._square_moment.sqrt(), Shape.of(pixels)).square()
        return optimizer

    def state(self, *, history: bool = True) -> AdamState:  # noqa: ARG002 - it has none
        """Return the state after the last step (see `Optimizer.state`)."""
        return AdamState(
            accepted=stable_evaluation(self.accepted),
            next=stable_tensor(self._next),
            learning_rate=self._learning_rate.item(),
            steps=int(self._steps),
            moment=stable_tensor(self._moment),
            square_moment=stable_tensor(self._square_moment),
            non_finite=int(self._guard.non_finite),
        )

    @classmethod
    def restored(cls, state: AdamState) -> "Adam":
        """Return an optimiser that goes on from a state."""
        optimizer = cls(state.next, learning_rate=state.learning_rate)
        optimizer._steps = torch.tensor(float(state.steps), dtype=torch.float64, device=state.next.device)
        optimizer._moment = state.moment
        optimizer._square_moment = state.square_moment
        optimizer._guard = NonFiniteGuard(state.next, state.accepted, state.non_finite)
        return optimizer
