"""The native pooling beside that of torch."""

import pytest
import torch
from nst_service.engine.arena import NATIVE
from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.convolution import FrozenConv
from nst_service.engine.network.native import MAX_POOL, NativeMaxPool
from nst_service.engine.network.pooling import pool, pooling_epilogue
from nst_service.engine.network.stored_kernel import StoredKernel
from torch import Tensor
from torch.nn import functional

pytestmark = pytest.mark.skipif(not NATIVE, reason="the native kernel was not built")


def _features(height: int, width: int, *, coarse: bool) -> Tensor:
    values = torch.randn(1, 33, height, width, generator=torch.Generator().manual_seed(height * width))
    # Coarse ones have equal values in most windows, as the flat parts of a picture do.
    return values.round().relu() if coarse else values


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 5), (8, 6), (9, 14), (31, 17)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torch(
    height: int, width: int, coarse: bool, memory_format: torch.memory_format
):
    x = _features(height, width, coarse=coarse).contiguous(memory_format=memory_format)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    pooled, expected = NativeMaxPool.apply(ours), functional.max_pool2d(theirs, 2, ceil_mode=True)
    assert torch.equal(pooled, expected)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(7))
    pooled.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("pooling", [Pooling.MAX, Pooling.AVERAGE])
@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 5), (4, 4), (6, 7), (17, 30), (5, 301)])
def test_a_convolution_that_pools_at_once_is_one_that_is_pooled_afterwards(
    size: tuple[int, int], padding: Padding, pooling: Pooling
):
    generator = torch.Generator().manual_seed(0)
    conv = FrozenConv(
        StoredKernel(torch.randn(64, 32, 3, 3, generator=generator)),
        torch.randn(64, generator=generator),
        Backend.NATIVE,
    )
    x = torch.randn(1, 32, *size, generator=generator).requires_grad_()
    epilogue = pooling_epilogue(pooling)
    assert epilogue is not None
    ours = conv.fused(x, padding, epilogue)
    theirs = pool(conv(x, padding, relu=True), pooling, Backend.NATIVE)
    towards = torch.randn(theirs.shape, generator=generator)
    mine, other = (torch.autograd.grad((y * towards).sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(mine, other)


def test_windows_without_any_activation_pass_no_gradient():
    conv = FrozenConv(StoredKernel(torch.zeros(32, 32, 3, 3)), torch.full((32,), -1.0), Backend.NATIVE)
    x = torch.randn(1, 32, 6, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(conv.fused(x, Padding.ZERO, MAX_POOL).sum(), x)
    assert not gradient.any()
