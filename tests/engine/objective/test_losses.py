import pytest
import torch
from nst_service.engine.objective.losses import LaplacianLoss, TemporalLoss, laplacian


def test_the_laplacian_of_a_ramp_is_zero_inside():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert laplacian(ramp)[..., 1:-1, 1:-1].abs().max() < 1e-3
    assert LaplacianLoss(1.0, laplacian(ramp)).value(ramp + 0.1).item() == pytest.approx(0, abs=1e-6)


def test_the_temporal_loss_counts_only_what_is_known():
    reference = torch.zeros(1, 3, 2, 2)
    known = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).view(1, 1, 2, 2)
    pixels = torch.ones(1, 3, 2, 2)
    assert TemporalLoss(2.0, reference, None).value(pixels).item() == pytest.approx(2 * 255**2)
    assert TemporalLoss(2.0, reference, known).value(pixels).item() == pytest.approx(2 * 255**2 / 4)
