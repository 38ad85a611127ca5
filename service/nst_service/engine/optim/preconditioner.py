"""The initial inverse Hessian of L-BFGS: a preconditioner that damps high spatial frequencies."""

import torch
from torch import Tensor

from nst_service.engine.sizes import Shape

_CORNER = 0.02
"""Cycles per pixel up to which all frequencies count alike."""


class FourierPreconditioner:
    """Multiplies every spatial frequency f of a gradient by corner / (corner + f).

    It is the square of the change of variables x = irfft(w * rfft(z)), w^2 = corner / (corner + f): an optimiser that
    takes it as its first inverse Hessian goes the way that it would go over z, and the objective and its minimum stay
    as they are. Natural pictures have about this spectrum.
    """

    def __init__(self, pixels: Tensor):
        """Make one for gradients like pixels (1, 3, H, W)."""
        self._shape = Shape.of(pixels)
        rows = torch.fft.fftfreq(self._shape.height, device=pixels.device)[:, None]
        columns = torch.fft.rfftfreq(self._shape.width, device=pixels.device)[None]
        self._factors = _CORNER / (_CORNER + torch.hypot(rows, columns))

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return a gradient (1, 3, H, W) with its frequencies weighted: symmetric and positive definite."""
        preconditioned: Tensor = torch.fft.irfft2(torch.fft.rfft2(gradient) * self._factors, s=self._shape)
        return preconditioned
