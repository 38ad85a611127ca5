"""The memory of features."""

from typing import Any

import pytest
import torch
from nst_service.engine import arena
from nst_service.engine.arena import NATIVE, empty_features, release_features
from torch import Tensor

_LARGE = (64, 128, 130)


@pytest.mark.parametrize("shape", [(3, 1, 1), (64, 5, 7), _LARGE])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_features_are_dense_in_channels_last_order(shape: tuple[int, int, int], dtype: torch.dtype):
    features = empty_features(*shape, dtype)
    assert features.shape == (1, *shape)
    assert features.dtype is dtype
    assert features.is_contiguous(memory_format=torch.channels_last)
    features.fill_(7)
    assert (features == 7).all()


def test_features_do_not_share_their_memory():
    first, second = empty_features(*_LARGE).fill_(1), empty_features(*_LARGE).fill_(2)
    assert (first == 1).all()
    assert (second == 2).all()


@pytest.mark.skipif(not NATIVE, reason="the native kernel was not built")
def test_features_that_are_gone_leave_their_place_to_the_next():
    features = empty_features(*_LARGE)
    place = features.data_ptr()
    del features
    release_features()
    assert empty_features(*_LARGE).data_ptr() == place


def test_a_view_of_features_keeps_their_memory():
    view = empty_features(*_LARGE).fill_(1)[:, :3]
    empty_features(*_LARGE).fill_(2)
    release_features()
    assert (view == 1).all()


def test_features_have_a_place_where_the_arena_has_none(monkeypatch: pytest.MonkeyPatch):
    class Full:
        LARGE = 2**20

        @staticmethod
        def take(**_: object) -> None:
            return None

    monkeypatch.setattr(arena, "extension", Full)
    assert empty_features(*_LARGE).fill_(1).sum() == 64 * 128 * 130


def test_gradients_that_meet_are_added_in_place():
    made: list[int] = []

    class Passing(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, *gradients: Tensor) -> Tensor:
            grad_input = empty_features(*_LARGE).copy_(gradients[0])
            made.append(grad_input.data_ptr())
            return grad_input

    x = empty_features(*_LARGE).fill_(1).requires_grad_()
    met: list[int] = []
    y = 2 * x
    y.register_hook(lambda gradient: met.append(gradient.data_ptr()))
    (Passing.apply(y) + Passing.apply(y)).sum().backward()
    assert met[0] in made
