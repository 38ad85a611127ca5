"""The weights that nst uses by default, for programs that feed other pixels to the network."""

from pathlib import Path
from typing import NamedTuple

import torch
from nst_service.engine.layers import CONVS
from nst_service.engine.weights import TORCHVISION_INDEX, load_weights

from bench.pixels import CAFFE_MEAN


class PixelInput(NamedTuple):
    """What a program feeds to its network: scale * pixels - mean, of pixels in [0, 1]."""

    bgr: bool
    scale: float = 255.0
    mean: tuple[float, ...] = CAFFE_MEAN
    """RGB."""


def export_weights(path: Path, pixels: PixelInput) -> None:
    """Write the weights with torchvision's key names, so that the network computes the same from these pixels.

    A scale or a mean that differs from that of the training goes into the first convolution. That is exact but for the
    outermost pixels, beside which a program pads with what is zero for it.
    """
    weights = load_weights("caffe")
    own_mean, own_std = torch.tensor(weights.mean), torch.tensor(weights.std)
    state = {}
    for conv, (kernel, bias) in weights.convs.items():
        if conv == CONVS[0]:
            shift = (torch.tensor(pixels.mean) / pixels.scale - own_mean) / own_std
            bias = bias + (kernel * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
            kernel = kernel / (pixels.scale * own_std).view(1, 3, 1, 1)
            kernel = kernel.flip(1) if pixels.bgr else kernel
        index = TORCHVISION_INDEX[conv]
        state[f"features.{index}.weight"] = kernel.contiguous()
        state[f"features.{index}.bias"] = bias
    torch.save(state, path)
