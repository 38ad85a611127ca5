"""Conversions between the pixel formats of programs. Needs torch, torchvision and Pillow only, like every program."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""The mean of the training pictures, RGB in 0..255. The network expects pixels without it."""


def load_picture(path: str) -> Tensor:
    """Return a picture, (1, 3, H, W) float32 RGB in [0, 1]."""
    values: Tensor = pil_to_tensor(Image.open(path).convert("RGB"))
    return values[None].contiguous().float() / 255


def caffe_input(pixels: Tensor) -> Tensor:
    """Convert RGB pixels (1, 3, H, W) in [0, 1] to RGB in 0..255 without the mean."""
    return 255 * pixels - _column(CAFFE_MEAN)


def from_caffe_bgr(pixels: Tensor, scale: float = 255.0) -> Tensor:
    """Convert BGR pixels in 0..scale without the mean to RGB in [0, 1]."""
    return (pixels.flip(1) + _column(CAFFE_MEAN)) / scale


def from_caffe_rgb(pixels: Tensor) -> Tensor:
    """Convert RGB pixels in 0..255 without the mean to RGB in [0, 1]."""
    return (pixels + _column(CAFFE_MEAN)) / 255


def _column(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)
