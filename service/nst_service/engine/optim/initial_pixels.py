"""The pixels that an optimisation starts from."""

import torch
from torch import Tensor

from nst_service.engine.choices import Init
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.spec import TransferSpec

_NOISE_MEAN, _NOISE_DEVIATION = 0.5, 0.1
"""Mean and standard deviation of the noise of `Init.RANDOM`, on the 0..1 scale."""


def initial_pixels(spec: TransferSpec) -> Tensor:
    """Return the pixels that a transfer starts from, (1, 3, H, W) in [0, 1] on the CPU, the same for every device."""
    match spec.options.init:
        case Init.CONTENT:
            return picture_to_tensor(spec.content)
        case Init.RANDOM:
            noise = torch.Generator().manual_seed(spec.options.seed)
            shape = (1, 3, *spec.content.size.shape)
            return torch.empty(shape).normal_(_NOISE_MEAN, _NOISE_DEVIATION, generator=noise).clamp_(0, 1)
        case Init.STYLE:
            return picture_to_tensor(spec.styles[0].picture.resized(spec.content.size))
        case Init.PICTURE:
            assert spec.init_picture is not None
            return picture_to_tensor(spec.init_picture)
