"""L-BFGS on pixels that stay in [0, 1]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from nst_service.engine.objective.evaluation import Evaluation, Objective
from nst_service.engine.optim.cuda_graph import stable_evaluation, stable_tensor
from nst_service.engine.optim.guard import NonFiniteGuard
from nst_service.engine.optim.preconditioner import FourierPreconditioner
from nst_service.engine.optim.resampling import resampled, resampled_gradient
from nst_service.engine.optim.selection import replace_row
from nst_service.engine.sizes import Shape


class CurvaturePair(NamedTuple):
    """The changes in one step, from which L-BFGS learns the curvature of the objective."""

    change: Tensor
    """Change of the pixels, (1, 3, H, W)."""
    gradient_change: Tensor
    """Change of the gradient, (1, 3, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LBFGSState:
    """The state of L-BFGS after a step. Snapshots are stored with the names of these fields as keys."""

    accepted: Evaluation
    """The evaluation that was accepted last."""
    next: Tensor
    """Pixels that are evaluated next, (1, 3, H, W)."""
    pairs: tuple[CurvaturePair, ...]
    """Curvature pairs, slot by slot."""
    steps: int
    """Number of pairs stored since the curvature was last forgotten. They fill the slots in turn, over and over."""
    backtracks: int
    """Number of steps taken back in a row."""
    non_finite: int
    """Number of evaluations in a row that were not finite."""


class LBFGS:
    """Limited-memory BFGS (Nocedal & Wright, "Numerical Optimization", section 7.2) without a line search.

    The two loops of their algorithm 7.4 are solved as two triangular systems, over all past steps at once.

    The first inverse Hessian is a preconditioner in the Fourier domain, scaled as in their equation 7.20: it reaches
    the same loss with about a fifth less evaluations.

    The optimum is looked for among pictures that can be shown: no pixel leaves [0, 1]. A step that would go further is
    projected onto the box, and pixels at its border that the gradient pushes outwards take no part (Bertsekas,
    "Projected Newton methods for optimization problems with simple constraints", SIAM J. Control Optim. 1982). Other
    programs clamp the picture when they are done, and lose there a part of what they have won.

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

    def __init__(self, pixels: Tensor, *, learning_rate: float, history: int, separates_chroma: bool = False):
        """Start at pixels (1, 3, H, W).

        Args:
            pixels: where to start.
            learning_rate: factor on every step.
            history: number of past steps that approximate the curvature.
            separates_chroma: whether the preconditioner weighs chroma apart (see `FourierPreconditioner`).
        """
        self._next = pixels
        self._learning_rate = learning_rate
        self._history = history
        self._separates_chroma = separates_chroma
        self._precondition = FourierPreconditioner(pixels, separates_chroma=separates_chroma)
        # A pair goes into the slot of the oldest, so that nothing is ever allocated or moved.
        self._changes = pixels.new_zeros(history, pixels.numel())
        self._gradient_changes = torch.zeros_like(self._changes)
        self._products = pixels.new_zeros(history, history, dtype=torch.float64)
        """Dot product of the change in each slot (rows) with the gradient change in each slot (columns)."""
        self._scale = pixels.new_ones(())
        """Factor on the preconditioner."""
        self._stored = self._backtracks = torch.tensor(0, device=pixels.device)
        """Numbers of pairs stored, and of steps taken back in a row (see `LBFGSState`), scalars on the device."""
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
        trial = objective(self._next)
        before = self._guard.last
        if before is None:
            self._guard.accept_or_reject(trial)
        else:
            is_accepted = self._guard.accept_or_reject(trial, trial.value <= self.MAX_GROWTH * before.value)
            self._store_pair(trial.pixels - before.pixels, trial.gradient - before.gradient, is_accepted)
            self._backtracks = torch.where(is_accepted, 0, self._backtracks + 1)
            # The curvature does not help: it is forgotten.
            self._stored = torch.where(self._backtracks > self.MAX_BACKTRACKS, 0, self._stored)
        self._next = self._next_pixels(self.accepted)

    def verify(self) -> None:
        """Raise what the steps until now have to raise (see `Optimizer.verify`)."""
        self._guard.verify()

    def tensors(self) -> Sequence[Tensor]:
        """Return what a step replaces (see `Optimizer.tensors`); the slots are written in place."""
        return (self._next, self._products, self._scale, self._stored, self._backtracks, *self._guard.tensors())

    def set_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors that `tensors` returned (see `Optimizer.set_tensors`)."""
        self._next, self._products, self._scale, self._stored, self._backtracks, *guard = tensors
        self._guard.set_tensors(guard)

    def _store_pair(self, change: Tensor, gradient_change: Tensor, is_accepted: Tensor | bool = True) -> None:
        """Store the curvature pair of a step that was accepted, if it says something on the curvature."""
        norms = change.norm() * gradient_change.norm()
        is_new = (_dot(change, gradient_change) > self.MIN_CURVATURE * norms) & is_accepted
        slot = (self._stored % self._history)[None]
        for slots, new in ((self._changes, change), (self._gradient_changes, gradient_change)):
            replace_row(slots, slot, new.flatten(), is_new)
        self._update_products(slot, is_new)
        self._stored = self._stored + is_new

    def _update_products(self, slot: Tensor, is_new: Tensor) -> None:
        """Compute the products and the scale for a slot, (1,), whose pair may be new."""
        change, gradient_change = (slots.index_select(0, slot)[0] for slots in (self._changes, self._gradient_changes))
        products = self._products.index_copy(0, slot, (self._gradient_changes @ change).double()[None])
        self._products = products.index_copy_(1, slot, (self._changes @ gradient_change).double()[:, None])
        gradient_change = gradient_change.view_as(self._next)
        curvature = _dot(gradient_change, self._precondition(gradient_change))
        self._scale = torch.where(is_new, _dot(change, gradient_change) / curvature, self._scale)

    def _next_pixels(self, origin: Evaluation) -> Tensor:
        """Return the pixels to evaluate after an evaluation."""
        free = _free_variables(origin)
        direction = self._direction(origin.gradient * free) * free
        rms = direction.square().mean().sqrt()
        length = self._learning_rate * self.BACKTRACK**self._backtracks
        first = length * self.FIRST_STEP_RMS / rms
        length = torch.where(self._stored == 0, first, length.clamp(max=self.MAX_STEP_RMS / rms))
        # Where the gradient is zero there is no step.
        return (origin.pixels + torch.where(rms > 0, length, 0) * direction).clamp_(0, 1)

    def _direction(self, gradient: Tensor) -> Tensor:
        """Return minus the gradient, multiplied by the approximate inverse Hessian."""
        # The pairs from the oldest to the newest; there may be fewer than slots.
        age = torch.arange(self._history, device=gradient.device)
        order = (self._stored + age) % self._history
        is_known = age >= self._history - self._stored
        # R of Byrd, Nocedal & Schnabel 1994, equation 2.2: s_i y_j for all j that are not older than i.
        ordered = self._products.index_select(0, order).index_select(1, order)
        identity = torch.eye(self._history, dtype=ordered.dtype, device=ordered.device)
        upper = torch.where(is_known & is_known[:, None], ordered, identity).triu()

        def products(slots: Tensor, vector: Tensor) -> Tensor:
            return torch.where(is_known, (slots @ vector.flatten()).double().index_select(0, order), 0)

        def combination(slots: Tensor, coefficients: Tensor) -> Tensor:
            by_slot = torch.empty_like(coefficients).index_copy_(0, order, coefficients).to(slots.dtype)
            return (by_slot @ slots).view_as(gradient)

        alphas = torch.linalg.solve_triangular(upper, products(self._changes, -gradient)[:, None], upper=True)[:, 0]
        direction = self._precondition(-gradient - combination(self._gradient_changes, alphas))
        direction *= torch.where(self._stored > 0, self._scale, 1)
        remainder = upper.diagonal() * alphas - products(self._gradient_changes, direction)
        betas = torch.linalg.solve_triangular(upper.T, remainder[:, None], upper=False)[:, 0]
        direction += combination(self._changes, betas)
        return direction

    def _pairs(self) -> list[CurvaturePair]:
        """Return the curvature pairs, slot by slot. They share memory with the slots."""
        like = self._next
        count = min(int(self._stored), self._history)
        return [
            CurvaturePair(change.view_as(like), gradient_change.view_as(like))
            for change, gradient_change in zip(self._changes[:count], self._gradient_changes[:count], strict=True)
        ]

    def resampled(self, pixels: Tensor) -> "LBFGS":
        """Return an optimiser that starts at pixels of another size with the curvature known so far."""
        optimizer = LBFGS(
            pixels,
            learning_rate=self._learning_rate,
            history=self._history,
            separates_chroma=self._separates_chroma,
        )
        pairs, shape = self._pairs(), Shape.of(pixels)
        oldest = int(self._stored) % len(pairs) if pairs else 0
        for change, gradient_change in pairs[oldest:] + pairs[:oldest]:
            optimizer._store_pair(resampled(change, shape), resampled_gradient(gradient_change, shape))
        return optimizer

    def state(self, *, history: bool = True) -> LBFGSState:
        """Return the state after the last step (see `Optimizer.state`)."""
        pairs = self._pairs() if history else []
        return LBFGSState(
            accepted=stable_evaluation(self.accepted),
            next=stable_tensor(self._next),
            pairs=tuple(CurvaturePair(*(tensor.clone() for tensor in pair)) for pair in pairs),
            steps=int(self._stored) if history else 0,
            backtracks=int(self._backtracks),
            non_finite=int(self._guard.non_finite),
        )

    @classmethod
    def restored(
        cls, state: LBFGSState, *, learning_rate: float, history: int, separates_chroma: bool = False
    ) -> "LBFGS":
        """Return an optimiser that goes on from a state of one that was made with the same arguments."""
        optimizer = cls(state.next, learning_rate=learning_rate, history=history, separates_chroma=separates_chroma)
        for row, pair in enumerate(state.pairs):
            optimizer._changes[row], optimizer._gradient_changes[row] = (tensor.flatten() for tensor in pair)
        # In the order in which they were stored, since the product of two was computed with the newer one.
        for step in range(state.steps - len(state.pairs), state.steps):
            slot = torch.tensor([step % history], device=state.next.device)
            optimizer._update_products(slot, torch.ones_like(slot[0], dtype=torch.bool))
        optimizer._stored = torch.tensor(state.steps, device=state.next.device)
        optimizer._backtracks = torch.tensor(state.backtracks, device=state.next.device)
        optimizer._guard = NonFiniteGuard(state.next, state.accepted, state.non_finite)
        return optimizer


def _free_variables(evaluation: Evaluation) -> Tensor:
    """Return 1 where a step down the gradient keeps a pixel in [0, 1], and 0 where it is at the border already."""
    pixels, gradient = evaluation.pixels, evaluation.gradient
    is_held = ((pixels <= 0) & (gradient > 0)) | ((pixels >= 1) & (gradient < 0))
    return (~is_held).to(gradient.dtype)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return torch.dot(left.flatten(), right.flatten())
