"""The native max pooling beside torch's."""

import pytest
import torch
from nst_service.engine.winograd import NATIVE, NativeMaxPool
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
