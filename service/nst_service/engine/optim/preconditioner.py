"""The initial inverse Hessian of L-BFGS: a preconditioner that damps high spatial frequencies."""

import torch
from torch import Tensor

from nst_service.engine.sizes import Shape

_CORNER = 0.02
"""Cycles per pixel up to which all frequencies count alike."""
_CHROMA_CORNER = 0.2
"""The same for chroma: the network hardly sees its high frequencies, so that their gradient and curvature are small."""
_CHROMA_GAIN = 1.5
"""Factor on the chroma of a gradient."""


class FourierPreconditioner:
    """Multiplies every spatial frequency f of a gradient by corner / (corner + f).

    It is the square of the change of variables x = irfft(w * rfft(z)), w^2 = corner / (corner + f): an optimiser that
    takes it as its first inverse Hessian goes the way that it would go over z, and the objective and its minimum stay
    as they are. Natural pictures have about this spectrum.

    It can weigh chroma, the difference of each channel from the mean of all three, apart from that mean. Then the
    fine colours of a style arrive about as soon as its fine tones.
    """

    def __init__(self, pixels: Tensor, *, separates_chroma: bool = False):
        """Make one for gradients like pixels (1, 3, H, W).

        Args:
            pixels: pixels whose shape and device the gradients have.
            separates_chroma: whether chroma has weights of its own.
        """
        self._shape = Shape.of(pixels)
        rows = torch.fft.fftfreq(self._shape.height, device=pixels.device)[:, None]
        columns = torch.fft.rfftfreq(self._shape.width, device=pixels.device)[None]
        frequencies = torch.hypot(rows, columns)
        self._factors = _CORNER / (_CORNER + frequencies)
        self._chroma_factors = (
            _CHROMA_GAIN * _CHROMA_CORNER / (_CHROMA_CORNER + frequencies) if separates_chroma else None
        )

    def __call__(self, gradient: Tensor) -> Tensor:
        """Return a gradient (1, 3, H, W) with its frequencies weighted: symmetric and positive definite."""
        spectrum = torch.fft.rfft2(gradient)
        if self._chroma_factors is None:
            weighted = spectrum * self._factors
        else:
            mean = spectrum.mean(1, keepdim=True)
            weighted = (spectrum - mean) * self._chroma_factors + mean * self._factors
        preconditioned: Tensor = torch.fft.irfft2(weighted, s=self._shape)
        return preconditioned
