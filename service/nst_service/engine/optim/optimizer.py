"""Optimisers of pixels: one evaluation of the objective per step, and a state that can be saved and restored.

Whatever decides on the next step is computed where the pixels are: on a GPU the host need not wait for any step, and
can have several under way.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from nst_service.engine.choices import OptimizerKind, StyleStatisticKind
from nst_service.engine.objective.evaluation import Evaluation, Objective
from nst_service.engine.optim.adam import Adam, AdamState
from nst_service.engine.optim.lbfgs import LBFGS, LBFGSState
from nst_service.engine.options import TransferOptions

OptimizerState = LBFGSState | AdamState
"""The state of an optimiser after a step."""


class Optimizer(Protocol):
    """Changes pixels in [0, 1] step by step so that a loss falls."""

    @property
    def accepted(self) -> Evaluation:
        """The evaluation that was accepted last: the newest one, or an earlier one where the newest was rejected."""

    @property
    def taken_back(self) -> int:
        """The number of steps of this optimiser that were taken back, which waits for the device."""

    def step(self, objective: Objective) -> None:
        """Evaluate once, and decide where to evaluate next. Does not wait for the device."""

    def verify(self) -> None:
        """Wait for the device, and check the steps until now.

        Raises:
            NonFiniteLossError: the loss was not finite at first, or three times in a row.
        """

    def tensors(self) -> Sequence[Tensor]:
        """Return the tensors that a step replaces."""

    def set_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors that `tensors` returned by others of the same shapes."""

    def resampled(self, pixels: Tensor) -> "Optimizer":
        """Return an optimiser that starts at pixels of another size with what this one has learnt."""

    def state(self, *, history: bool = True) -> OptimizerState:
        """Return all that `restored_optimizer` needs to go on exactly after the last step; no later step changes it.

        Args:
            history: whether to include the curvature pairs of L-BFGS, which are most of a state. An optimiser that
                goes on without them takes other steps, and some more of them for the same loss.
        """


def make_optimizer(options: TransferOptions, pixels: Tensor) -> Optimizer:
    """Return the optimiser of completed options, before its first step from pixels (1, 3, H, W)."""
    learning_rate = options.learning_rate
    assert learning_rate is not None
    match options.optimizer:
        case OptimizerKind.LBFGS:
            return LBFGS(
                pixels,
                learning_rate=learning_rate,
                history=options.curvature_pairs,
                separates_chroma=_separates_chroma(options),
            )
        case OptimizerKind.ADAM:
            return Adam(pixels, learning_rate=learning_rate)


def restored_optimizer(options: TransferOptions, state: OptimizerState) -> Optimizer:
    """Return an optimiser that goes on from a state, which `is_state_of` completed options."""
    match state:
        case LBFGSState():
            assert options.learning_rate is not None
            return LBFGS.restored(
                state,
                learning_rate=options.learning_rate,
                history=options.curvature_pairs,
                separates_chroma=_separates_chroma(options),
            )
        case AdamState():
            return Adam.restored(state)


def _separates_chroma(options: TransferOptions) -> bool:
    """Return whether L-BFGS weighs chroma apart. With Gram matrices it goes the way of release 0.1.0, bit for bit."""
    return options.style_loss is not StyleStatisticKind.GRAM


def is_state_of(state: OptimizerState, options: TransferOptions) -> bool:
    """Return whether the optimiser of these options can have this state."""
    match options.optimizer:
        case OptimizerKind.LBFGS:
            return isinstance(state, LBFGSState) and len(state.pairs) == min(state.steps, options.curvature_pairs)
        case OptimizerKind.ADAM:
            return isinstance(state, AdamState)
