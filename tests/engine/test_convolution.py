import pytest
import torch
from nst_service.engine.convolution import FrozenConv
from torch.nn import functional


@pytest.mark.parametrize("channels", [(8, 16), (128, 128), (128, 192)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (16, 16), (17, 30), (4, 3000)])
@pytest.mark.parametrize("padding", [0, 1])
def test_a_convolution_and_its_gradient_are_those_of_torch(
    channels: tuple[int, int], size: tuple[int, int], padding: int
):
    inputs, outputs = channels
    height, width = (edge + 2 - 2 * padding for edge in size)
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(1, inputs, height, width, generator=generator).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    ours = FrozenConv(kernel, bias)(x, padding=padding)
    theirs = functional.conv2d(x, kernel, bias, padding=padding)
    assert ours.shape == theirs.shape == (1, outputs, *size)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    towards = torch.randn(theirs.shape, generator=generator)
    mine, other = (torch.autograd.grad((y * towards).sum(), x)[0] for y in (ours, theirs))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert (mine - other).norm() <= 1e-5 * other.norm()
