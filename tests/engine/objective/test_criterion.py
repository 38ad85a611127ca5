import sys

import pytest
import torch
from nst_service.engine.network.layers import WHOLE
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.extractor import Extractor
from nst_service.engine.objective.losses import ContentLoss, StyleLoss, TotalVariationLoss
from nst_service.engine.objective.statistics import GramStatistic, Region
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.sizes import Shape
from PIL import Image

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture
def neural_style(monkeypatch: pytest.MonkeyPatch):
    # The module parses the command line when it is imported.
    monkeypatch.setattr(sys, "argv", ["neural-style"])
    # It also lifts Pillow's limit on pixels for the whole process: put back afterwards.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    return pytest.importorskip("neural_style.neural_style")


@pytest.fixture(params=["generated", "real"])
def pictures(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    """A content and a style picture of the same size."""
    if request.param == "generated":
        content, style = torch.rand(2, 1, 3, 40, 52, generator=torch.Generator().manual_seed(0))
        return content, style
    real = request.getfixturevalue("real_pictures")
    content, style = (picture_to_tensor(decode(data, max_pixels=10**6)) for data in real)
    return content, style


def test_terms_and_gradient_equal_those_of_neural_style(model: Vgg19, neural_style, pictures):
    content, style = pictures
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(1))
    pixels = (content + 0.1 * noise).clamp(0, 1)
    layers = (*STYLE_LAYERS, "relu4_2")
    with torch.no_grad():
        content_target = model.features(content, ["relu4_2"])["relu4_2"]
        style_features = model.features(style, STYLE_LAYERS)
    losses = [ContentLoss("relu4_2", 5.0, content_target)]
    for layer, features in style_features.items():
        gram, region = GramStatistic(), Region.whole(Shape.of(features))
        losses.append(StyleLoss(layer, 100.0, gram, gram.gather(features, region, WHOLE), region))
    ours = Criterion(Extractor(model), losses, [TotalVariationLoss(1e-3)])(pixels)

    theirs = pixels.clone().requires_grad_()
    features = model.features(theirs, layers)
    modules = {"relu4_2": neural_style.ContentLoss(5.0)}
    modules |= {layer: neural_style.StyleLoss(100.0) for layer in STYLE_LAYERS}
    variation = neural_style.TVLoss(1e-3)
    for layer, module in modules.items():
        module.mode = "capture"
        module((content_target if layer == "relu4_2" else style_features[layer]).contiguous())
        module.mode = "loss"
        module(features[layer].contiguous())
    variation(255 * theirs)
    expected = {layer: module.loss for layer, module in modules.items()} | {"": variation.loss}
    (gradient,) = torch.autograd.grad(sum(expected.values()), theirs)

    for term, value in ours.term_values().items():
        assert value == pytest.approx(expected[term.layer].item(), rel=1e-4)
    assert (ours.gradient - gradient).norm() <= 1e-4 * gradient.norm()
