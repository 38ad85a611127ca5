"""Optimisers of pixels: one evaluation of the objective per step, and a state that can be saved and restored.

Whatever decides on the next step is computed where the pixels are: on a GPU the host need not wait for any step, and
can have several under way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.objective.criterion import Evaluation
from nst_service.engine.optim.preconditioner import FourierPreconditioner

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGSState:
    """Where L-BFGS stands after a step."""

    accepted: Evaluation
    """What it stands on."""
    next: Tensor
    """Where it evaluates next, (1, 3, H, W)."""
    pairs: tuple[Pair, ...]
    """By slot."""
    steps: int
    """Pairs that were ever learnt since the curvature was last forgotten: slot by slot, and over again."""
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
    steps: int
    """That the moments are made of."""
    moment: Tensor
    """Moving average of the gradient, (1, 3, H, W)."""
    square_moment: Tensor
    """Moving average of its square, (1, 3, H, W)."""
    non_finite: int
    """Evaluations in a row that were not finite."""


OptimizerState = LBFGSState | AdamState


class Optimizer(Protocol):
    """Changes pixels in [0, 1] step by step so that a loss falls."""

    @property
    def accepted(self) -> Evaluation:
        """What it stands on after a step: the new evaluation, or an earlier one where the new one was rejected."""

    def step(self, evaluate: Evaluate) -> None:
        """Evaluate once, and decide where to evaluate next. Does not wait for the device."""

    def verify(self) -> None:
        """Wait for the device, and look at the steps until now.

        Raises:
            NonFiniteLossError: the loss was not finite at first, or three times in a row.
        """

    def tensors(self) -> Sequence[Tensor]:
        """Return the tensors that a step replaces."""

    def adopt(self, tensors: Sequence[Tensor]) -> None:
        """Take tensors for those that `tensors` returned."""

    def moved(self, pixels: Tensor) -> "Optimizer":
        """Return an optimiser that starts at pixels of another size with what this one has learnt."""

    def state(self, *, history: bool = True) -> OptimizerState:
        """Return all that `restored` needs to go on exactly after the last step; later ones do not change it.

        Args:
            history: whether with the steps that L-BFGS has learnt from, which are most of it. An optimiser that goes
                on without takes other steps, and some more of them for the same loss.
        """


class _Guard:
    """Takes steps to a loss that is not finite back, and notices when there are too many."""

    def __init__(self, pixels: Tensor, accepted: Evaluation | None = None, non_finite: int = 0):
        self.last = accepted
        """The evaluation that was accepted last."""
        self.in_a_row = torch.tensor(non_finite, device=pixels.device)
        """Evaluations that were not finite."""
        self._most = self.in_a_row

    @property
    def accepted(self) -> Evaluation:
        """The same, after a step."""
        assert self.last is not None
        return self.last

    def judge(self, trial: Evaluation, is_better: Tensor | bool = True) -> Tensor:
        """Return whether a new evaluation is accepted: it is finite, and better where that is asked for."""
        is_finite = trial.is_finite
        self.in_a_row = torch.where(is_finite, 0, self.in_a_row + 1)
        if self.last is None:
            # There is nothing to take it back to.
            self._most = torch.where(is_finite, 0, MAX_CONSECUTIVE_NON_FINITE)
            self.last = trial
            return is_finite
        self._most = torch.maximum(self._most, self.in_a_row)
        is_accepted = is_finite & is_better
        self.last = either(is_accepted, trial, self.last)
        return is_accepted

    def verify(self) -> None:
        """Raise NonFiniteLossError where there were too many."""
        if int(self._most) >= MAX_CONSECUTIVE_NON_FINITE:
            raise NonFiniteLossError("the loss was not finite at first, or three times in a row")

    def tensors(self) -> Sequence[Tensor]:
        """See `Optimizer.tensors`."""
        return (*self.accepted.tensors(), self.in_a_row, self._most)

    def adopt(self, tensors: Sequence[Tensor]) -> None:
        """See `Optimizer.adopt`."""
        *accepted, self.in_a_row, self._most = tensors
        self.last = self.accepted.with_tensors(accepted)


class LBFGS:
    """Limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", section 7.2) without a line search.

    The two loops of their algorithm 7.4 are solved as two triangular systems, over all past steps at once.

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
        # A step goes into the slot of the oldest, so that nothing is ever allocated or moved.
        self._changes = pixels.new_zeros(history, pixels.numel())
        self._gradient_changes = torch.zeros_like(self._changes)
        self._products = pixels.new_zeros(history, history, dtype=torch.float64)
        """Of every change with every gradient change, by slot."""
        self._scale = pixels.new_ones(())
        """Of the preconditioner."""
        self._steps = self._backtracks = torch.tensor(0, device=pixels.device)
        self._guard = _Guard(pixels)

    @property
    def accepted(self) -> Evaluation:
        """What it stands on (see `Optimizer.accepted`)."""
        return self._guard.accepted

    def step(self, evaluate: Evaluate) -> None:
        """Evaluate once, and decide where to evaluate next (see `Optimizer.step`)."""
        trial = evaluate(self._next)
        before = self._guard.last
        if before is None:
            self._guard.judge(trial)
        else:
            is_accepted = self._guard.judge(trial, trial.value <= self.MAX_GROWTH * before.value)
            self._remember(trial.pixels - before.pixels, trial.gradient - before.gradient, is_accepted)
            self._backtracks = torch.where(is_accepted, 0, self._backtracks + 1)
            # What was learnt does not help: it is forgotten.
            self._steps = torch.where(self._backtracks > self.MAX_BACKTRACKS, 0, self._steps)
        self._next = self._advanced(self.accepted)

    def verify(self) -> None:
        """Look at the steps until now (see `Optimizer.verify`)."""
        self._guard.verify()

    def tensors(self) -> Sequence[Tensor]:
        """Return what a step replaces (see `Optimizer.tensors`); the slots are written where they are."""
        return (self._next, self._products, self._scale, self._steps, self._backtracks, *self._guard.tensors())

    def adopt(self, tensors: Sequence[Tensor]) -> None:
        """Take others for those (see `Optimizer.adopt`)."""
        self._next, self._products, self._scale, self._steps, self._backtracks, *guard = tensors
        self._guard.adopt(guard)

    def _remember(self, change: Tensor, gradient_change: Tensor, is_accepted: Tensor | bool = True) -> None:
        """Learn from a step that was accepted, if it tells of the curvature."""
        norms = change.norm() * gradient_change.norm()
        is_new = (_dot(change, gradient_change) > self.MIN_CURVATURE * norms) & is_accepted
        slot = (self._steps % self._history)[None]
        for slots, new in ((self._changes, change), (self._gradient_changes, gradient_change)):
            _put(slots, slot, new.flatten(), is_new)
        self._multiply(slot, is_new)
        self._steps = self._steps + is_new

    def _multiply(self, slot: Tensor, is_new: Tensor) -> None:
        """Compute what the direction needs to know of a slot, (1,), which may be new."""
        change, gradient_change = (slots.index_select(0, slot)[0] for slots in (self._changes, self._gradient_changes))
        products = self._products.index_copy(0, slot, (self._gradient_changes @ change).double()[None])
        self._products = products.index_copy_(1, slot, (self._changes @ gradient_change).double()[:, None])
        gradient_change = gradient_change.view_as(self._next)
        curvature = _dot(gradient_change, self._precondition(gradient_change))
        self._scale = torch.where(is_new, _dot(change, gradient_change) / curvature, self._scale)

    def _advanced(self, origin: Evaluation) -> Tensor:
        """Return where to evaluate after this evaluation."""
        free = _free(origin)
        direction = self._direction(origin.gradient * free) * free
        rms = direction.square().mean().sqrt()
        length = self._learning_rate * self.BACKTRACK**self._backtracks
        first = length * self.FIRST_STEP_RMS / rms
        length = torch.where(self._steps == 0, first, length.clamp(max=self.MAX_STEP_RMS / rms))
        # Where there is no slope there is no step.
        return (origin.pixels + torch.where(rms > 0, length, 0) * direction).clamp_(0, 1)

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return minus the gradient, multiplied by the approximate inverse Hessian."""
        # Of the pairs, oldest first; there may be fewer than slots.
        age = torch.arange(self._history, device=gradient.device)
        order = (self._steps + age) % self._history
        is_known = age >= self._history - self._steps
        # R of Byrd, Nocedal & Schnabel 1994, equation 2.2: s_i y_j for all j that are not older than i.
        ordered = self._products.index_select(0, order).index_select(1, order)
        identity = torch.eye(self._history, dtype=ordered.dtype, device=ordered.device)
        upper = torch.where(is_known & is_known[:, None], ordered, identity).triu()

        def along(slots: Tensor, vector: Tensor) -> Tensor:
            return torch.where(is_known, (slots @ vector.flatten()).double().index_select(0, order), 0)

        def combined(slots: Tensor, shares: Tensor) -> Tensor:
            by_slot = torch.empty_like(shares).index_copy_(0, order, shares).to(slots.dtype)
            return (by_slot @ slots).view_as(gradient)

        alphas = torch.linalg.solve_triangular(upper, along(self._changes, -gradient)[:, None], upper=True)[:, 0]
        direction = self._precondition(-gradient - combined(self._gradient_changes, alphas))
        direction *= torch.where(self._steps > 0, self._scale, 1)
        remainder = upper.diagonal() * alphas - along(self._gradient_changes, direction)
        betas = torch.linalg.solve_triangular(upper.T, remainder[:, None], upper=False)[:, 0]
        direction += combined(self._changes, betas)
        return direction

    def _pairs(self) -> list[Pair]:
        """Return what was learnt, by slot."""
        like = self._next
        count = min(int(self._steps), self._history)
        return [
            Pair(change.view_as(like), gradient_change.view_as(like))
            for change, gradient_change in zip(self._changes[:count], self._gradient_changes[:count], strict=True)
        ]

    def moved(self, pixels: Tensor) -> "LBFGS":
        """Return an optimiser that starts at pixels of another size with the curvature known so far."""
        moved = LBFGS(pixels, learning_rate=self._learning_rate, history=self._history)
        pairs = self._pairs()
        oldest = int(self._steps) % len(pairs) if pairs else 0
        for change, gradient_change in pairs[oldest:] + pairs[:oldest]:
            moved._remember(_resized(change, pixels), _resized_gradient(gradient_change, pixels))
        return moved

    def state(self, *, history: bool = True) -> LBFGSState:
        """Return where it stands (see `Optimizer.state`)."""
        pairs = self._pairs() if history else []
        return LBFGSState(
            accepted=kept(self.accepted),
            next=kept_tensor(self._next),
            pairs=tuple(Pair(*(tensor.clone() for tensor in pair)) for pair in pairs),
            steps=int(self._steps) if history else 0,
            backtracks=int(self._backtracks),
            non_finite=int(self._guard.in_a_row),
        )

    @classmethod
    def restored(cls, state: LBFGSState, *, learning_rate: float, history: int) -> "LBFGS":
        """Return an optimiser that goes on from a state, with the arguments of the one that it is of."""
        restored = cls(state.next, learning_rate=learning_rate, history=history)
        for row, pair in enumerate(state.pairs):
            restored._changes[row], restored._gradient_changes[row] = (tensor.flatten() for tensor in pair)
        # As they came, since the newer of two has multiplied them.
        for step in range(state.steps - len(state.pairs), state.steps):
            slot = torch.tensor([step % history], device=state.next.device)
            restored._multiply(slot, torch.ones_like(slot[0], dtype=torch.bool))
        restored._steps = torch.tensor(state.steps, device=state.next.device)
        restored._backtracks = torch.tensor(state.backtracks, device=state.next.device)
        restored._guard = _Guard(state.next, state.accepted, state.non_finite)
        return restored


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on pixels that stay in [0, 1].

    A step to a loss that is not finite is taken back and halved.
    """

    BACKTRACK = 0.5
    """Factor on the learning rate after a step that was taken back."""
    DECAY, SQUARE_DECAY = 0.9, 0.999
    """Of the moving averages of the gradient and of its square."""
    EPSILON = 1e-8
    """Added to the root of the square's average."""

    def __init__(self, pixels: Tensor, *, learning_rate: float):
        """Start at pixels (1, 3, H, W).

        Args:
            pixels: where to start.
            learning_rate: about the largest change of a pixel in one step, on the 0..1 scale.
        """
        self._next = pixels
        # As precise as the numbers that a saved state has.
        self._learning_rate = torch.tensor(learning_rate, dtype=torch.float64, device=pixels.device)
        self._steps = torch.tensor(0.0, dtype=torch.float64, device=pixels.device)
        self._moment = torch.zeros_like(pixels)
        self._square_moment = torch.zeros_like(pixels)
        self._guard = _Guard(pixels)

    @property
    def accepted(self) -> Evaluation:
        """What it stands on (see `Optimizer.accepted`)."""
        return self._guard.accepted

    def step(self, evaluate: Evaluate) -> None:
        """Evaluate once, and decide where to evaluate next (see `Optimizer.step`)."""
        is_accepted = self._guard.judge(evaluate(self._next))
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
        """Look at the steps until now (see `Optimizer.verify`)."""
        self._guard.verify()

    def tensors(self) -> Sequence[Tensor]:
        """Return what a step replaces (see `Optimizer.tensors`)."""
        moments = (self._moment, self._square_moment)
        return (self._next, self._learning_rate, self._steps, *moments, *self._guard.tensors())

    def adopt(self, tensors: Sequence[Tensor]) -> None:
        """Take others for those (see `Optimizer.adopt`)."""
        self._next, self._learning_rate, self._steps, self._moment, self._square_moment, *guard = tensors
        self._guard.adopt(guard)

    def moved(self, pixels: Tensor) -> "Adam":
        """Return an optimiser that starts at pixels of another size with the moments of the gradient known so far."""
        moved = Adam(pixels, learning_rate=self._learning_rate.item())
        moved._steps = self._steps
        moved._moment = _resized_gradient(self._moment, pixels)
        # Interpolated as the root that it is used as: never below zero.
        moved._square_moment = _resized_gradient(self._square_moment.sqrt(), pixels).square()
        return moved

    def state(self, *, history: bool = True) -> AdamState:  # noqa: ARG002 - it has none
        """Return where it stands (see `Optimizer.state`)."""
        return AdamState(
            accepted=kept(self.accepted),
            next=kept_tensor(self._next),
            learning_rate=self._learning_rate.item(),
            steps=int(self._steps),
            moment=kept_tensor(self._moment),
            square_moment=kept_tensor(self._square_moment),
            non_finite=int(self._guard.in_a_row),
        )

    @classmethod
    def restored(cls, state: AdamState) -> "Adam":
        """Return an optimiser that goes on from a state."""
        restored = cls(state.next, learning_rate=state.learning_rate)
        restored._steps = torch.tensor(float(state.steps), dtype=torch.float64, device=state.next.device)
        restored._moment = state.moment
        restored._square_moment = state.square_moment
        restored._guard = _Guard(state.next, state.accepted, state.non_finite)
        return restored


def either(condition: Tensor, one: Evaluation, other: Evaluation) -> Evaluation:
    """Return one evaluation where a condition (a scalar on the device) holds, or else the other.

    On a CPU nothing is copied; a GPU chooses by itself, without the host waiting for it.
    """
    if condition.device.type == "cpu":
        return one if condition else other
    chosen = [torch.where(condition, *pair) for pair in zip(one.tensors(), other.tensors(), strict=True)]
    return one.with_tensors(chosen)


def kept(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation that no later step changes (see `graphs`): a copy, except on a CPU."""
    if evaluation.pixels.device.type == "cpu":
        return evaluation
    return evaluation.with_tensors([kept_tensor(tensor) for tensor in evaluation.tensors()])


def kept_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor that no later step changes."""
    return tensor if tensor.device.type == "cpu" else tensor.clone()


def _put(slots: Tensor, slot: Tensor, new: Tensor, condition: Tensor) -> None:
    """Replace the row of a slot, (1,), where a condition holds; as with `either`, without waiting for a GPU."""
    if condition.device.type == "cpu":
        if condition:
            slots[int(slot)] = new
        return
    slots.index_copy_(0, slot, torch.where(condition, new, slots.index_select(0, slot)))


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


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.dot(left.flatten(), right.flatten())
