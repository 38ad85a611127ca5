"""Pictures and masks as tensors. Processes that only decode pictures need no torch, and do not import this module."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nst_service.engine.pictures.picture import Picture


def picture_to_tensor(picture: Picture) -> Tensor:
    """Return the colours of a picture, (1, 3, H, W) float32 in [0, 1], contiguous, on the CPU."""
    return torch.from_numpy(np.array(picture.rgb)).permute(2, 0, 1)[None].contiguous().to(torch.float32) / 255


def mask_to_tensor(mask: Image.Image) -> Tensor:
    """Return a mask of mode L as (1, 1, H, W) float32 in [0, 1], on the CPU."""
    return torch.from_numpy(np.array(mask))[None, None].to(torch.float32) / 255
