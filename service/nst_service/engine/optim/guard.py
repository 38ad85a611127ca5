"""The guard of an optimiser against losses that are not finite."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.objective.evaluation import Evaluation
from nst_service.engine.optim.selection import select_evaluation

MAX_CONSECUTIVE_NON_FINITE = 3
"""Evaluations in a row that may be infinite or undefined before an optimiser gives up."""


class NonFiniteGuard:
    """Rejects steps to a loss that is not finite, and notices when there are too many in a row."""

    def __init__(self, pixels: Tensor, accepted: Evaluation | None = None, non_finite: int = 0):
        """Make a guard for pixels (1, 3, H, W) after an accepted evaluation and rejected ones since."""
        self.last = accepted
        """The evaluation that was accepted last; None before the first step."""
        self.non_finite = torch.tensor(non_finite, device=pixels.device)
        """Number of evaluations in a row that were not finite, a scalar on the device."""
        self.rejected = torch.tensor(0, device=pixels.device)
        """Number of evaluations that were rejected, a scalar on the device."""
        self._most_non_finite = self.non_finite
        """The largest that `non_finite` has been."""

    @property
    def accepted(self) -> Evaluation:
        """The evaluation that was accepted last, after at least one step."""
        assert self.last is not None
        return self.last

    def accept_or_reject(self, trial: Evaluation, is_better: Tensor | bool = True) -> Tensor:
        """Accept a new evaluation where it is finite and `is_better`, and return whether it was accepted."""
        is_finite = trial.is_finite
        self.non_finite = torch.where(is_finite, 0, self.non_finite + 1)
        if self.last is None:
            # There is nothing to go back to.
            self._most_non_finite = torch.where(is_finite, 0, MAX_CONSECUTIVE_NON_FINITE)
            self.last = trial
            return is_finite
        self._most_non_finite = torch.maximum(self._most_non_finite, self.non_finite)
        is_accepted = is_finite & is_better
        self.rejected = self.rejected + ~is_accepted
        self.last = select_evaluation(is_accepted, trial, self.last)
        return is_accepted

    def verify(self) -> None:
        """Raise NonFiniteLossError if too many evaluations were not finite. Waits for the device."""
        if int(self._most_non_finite) >= MAX_CONSECUTIVE_NON_FINITE:
            raise NonFiniteLossError("the loss was not finite at first, or three times in a row")

    def tensors(self) -> Sequence[Tensor]:
        """Return the tensors that a step replaces."""
        return (*self.accepted.tensors(), self.non_finite, self._most_non_finite, self.rejected)

    def set_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors that `tensors` returned."""
        *accepted, self.non_finite, self._most_non_finite, self.rejected = tensors
        self.last = self.accepted.with_tensors(accepted)
