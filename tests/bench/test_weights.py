from pathlib import Path

import pytest
import torch
from nst_service.engine.network.vgg import Vgg19
from torch.nn import functional

from bench.weights import PixelInput, export_weights


@pytest.mark.parametrize(
    "pixels",
    [PixelInput(bgr=False), PixelInput(bgr=True, scale=256.0), PixelInput(bgr=True, mean=(120.0, 110.0, 100.0))],
)
def test_the_first_layer_sees_the_same_whatever_pixels_a_program_feeds(
    model: Vgg19, tmp_path: Path, pixels: PixelInput
):
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "vgg19.pth"
    export_weights(path, pixels)
    state = torch.load(path, weights_only=True)

    fed = pixels.scale * picture - torch.tensor(pixels.mean).view(1, 3, 1, 1)
    fed = fed.flip(1) if pixels.bgr else fed
    # Zeros around the picture are another colour for each of them.
    theirs = functional.conv2d(fed, state["features.0.weight"], state["features.0.bias"])
    ours = model.features(picture, ["conv1_1"])["conv1_1"][..., 1:-1, 1:-1]

    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-2)
