"""The objective at one picture: its value, its terms and its gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NewType

from torch import Tensor

from nst_service.engine.objective.losses import Term

Values = NewType("Values", Tensor)
"""One number for each term, (n,), on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The objective at one picture. Snapshots are stored with the names of these fields as keys."""

    pixels: Tensor
    """Pixels that were evaluated, (1, 3, H, W) float32."""
    gradient: Tensor
    """Gradient of the loss with respect to the pixels, (1, 3, H, W)."""
    terms: tuple[Term, ...]
    """Terms of the objective."""
    values: Values
    """Weighted value of each term."""

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.terms),):
            raise ValueError("each term has a value")

    @property
    def value(self) -> Tensor:
        """The sum of all terms, a scalar on the device."""
        return self.values.sum()

    @property
    def is_finite(self) -> Tensor:
        """Whether the loss and its gradient are finite, a scalar on the device."""
        return self.value.isfinite() & self.gradient.isfinite().all()

    @property
    def loss(self) -> float:
        """The sum of all terms. Waits for the device."""
        return self.value.item()

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the pixels, the gradient and the values."""
        return self.pixels, self.gradient, self.values

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Evaluation":
        """Return an evaluation of the same terms that has other pixels, gradient and values."""
        pixels, gradient, values = tensors
        return Evaluation(pixels=pixels, gradient=gradient, terms=self.terms, values=Values(values))

    def term_values(self) -> dict[Term, float]:
        """Return every term as a number. Waits for the device."""
        return dict(zip(self.terms, self.values.tolist(), strict=True))


Objective = Callable[[Tensor], Evaluation]
"""Evaluates the objective at pixels (1, 3, H, W)."""
