"""Pixels in the forms that programs work in. Needs torch and Pillow only: every program's environment has them."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""RGB, subtracted from pixels in 0..255: what the weights were trained with."""


def load_picture(path: str) -> Tensor:
    """Return a picture, (1, 3, H, W) float32 RGB in [0, 1]."""
    values: Tensor = pil_to_tensor(Image.open(path).convert("RGB"))
    return values[None].contiguous().float() / 255


def caffe_input(pixels: Tensor) -> Tensor:
    """Return pixels (1, 3, H, W) in [0, 1] in 0..255 without the mean, still RGB."""
    return 255 * pixels - _column(CAFFE_MEAN)


def from_caffe_bgr(pixels: Tensor, scale: float = 255.0) -> Tensor:
    """Return a picture, RGB in [0, 1], from BGR pixels in 0..scale without the mean."""
    return (pixels.flip(1) + _column(CAFFE_MEAN)) / scale


def from_caffe_rgb(pixels: Tensor) -> Tensor:
    """Return a picture in [0, 1] from RGB pixels in 0..255 without the mean."""
    return (pixels + _column(CAFFE_MEAN)) / 255


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
