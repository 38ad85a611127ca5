"""The default weights of nst, converted for programs that feed other pixels to the network."""

from pathlib import Path
from typing import NamedTuple

import torch
from nst_service.engine.network.layers import CONVS
from nst_service.engine.network.weights import TORCHVISION_INDEX, Weights, load_weights
from torch import Tensor

from bench.pixels import CAFFE_MEAN


class PixelInput(NamedTuple):
    """The input of a network: scale * pixels - mean, for pixels in [0, 1]."""

    bgr: bool
    """Whether the channels are in the order BGR instead of RGB."""
    scale: float = 255.0
    mean: tuple[float, ...] = CAFFE_MEAN
    """Mean of each channel, RGB."""


def export_weights(path: Path, pixels: PixelInput) -> None:
    """Write the weights with torchvision's key names, so that the network computes the same from these pixels.

    A scale or a mean that differs from that of the training becomes a part of the first convolution. That is exact
    except for the outermost pixels, because the zeros of the padding stand for another colour.
    """
    weights = load_weights("caffe")
    state = {}
    for conv, (kernel, bias) in weights.convs.items():
        index = TORCHVISION_INDEX[conv]
        state[f"features.{index}.weight"], state[f"features.{index}.bias"] = (
            _adapted(kernel.dense(), bias, weights, pixels) if conv == CONVS[0] else (kernel.dense(), bias)
        )
    torch.save(state, path)


def _adapted(kernel: Tensor, bias: Tensor, weights: Weights, pixels: PixelInput) -> tuple[Tensor, Tensor]:
    std = torch.tensor(weights.std)
    shift = (torch.tensor(pixels.mean) / pixels.scale - torch.tensor(weights.mean)) / std
    bias = bias + (kernel * shift.view(1, 3, 1, 1)).sum((1, 2, 3))
    kernel = kernel / (pixels.scale * std).view(1, 3, 1, 1)
    return (kernel.flip(1) if pixels.bgr else kernel).contiguous(), bias
