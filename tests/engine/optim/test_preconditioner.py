import math

import pytest
import torch
from nst_service.engine.optim.preconditioner import FourierPreconditioner
from nst_service.engine.sizes import Shape


def test_slow_changes_are_kept_and_fast_ones_are_weakened():
    precondition = FourierPreconditioner(torch.empty(1, 3, 40, 50))
    flat = torch.ones(1, 3, 40, 50)
    assert torch.allclose(precondition(flat), flat, atol=1e-6)
    wave = torch.cos(2 * math.pi * 10 / 50 * torch.arange(50.0)).expand(1, 3, 40, 50)
    assert torch.allclose(precondition(wave), wave * (0.02 / 0.22), atol=1e-6)


def test_fine_chroma_is_weakened_less_than_fine_tones_where_it_is_weighed_apart():
    precondition = FourierPreconditioner(torch.empty(1, 3, 40, 50), separates_chroma=True)
    wave = torch.cos(2 * math.pi * 10 / 50 * torch.arange(50.0)).expand(1, 3, 40, 50)
    assert torch.allclose(precondition(wave), wave * (0.02 / 0.22), atol=1e-6)
    chroma = wave * torch.tensor([1.0, -2.0, 1.0])[:, None, None]
    assert torch.allclose(precondition(chroma), chroma * (1.5 * 0.2 / 0.4), atol=1e-6)


@pytest.mark.parametrize("separates_chroma", [False, True])
@pytest.mark.parametrize("shape", [Shape(1, 1), Shape(7, 5), Shape(16, 9)])
def test_it_is_symmetric_and_positive_definite(shape: Shape, separates_chroma: bool):
    precondition = FourierPreconditioner(torch.empty(1, 3, *shape), separates_chroma=separates_chroma)
    x, y = torch.randn(2, 1, 3, *shape, dtype=torch.float64)
    assert torch.allclose((x * precondition(y)).sum(), (y * precondition(x)).sum())
    assert (x * precondition(x)).sum() > 0
