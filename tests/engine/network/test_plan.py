import pytest
import torch
from nst_service.engine.arena import NATIVE
from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.layers import Window
from nst_service.engine.network.plan import (
    REFERENCE_VARIANT,
    Kept,
    PairStep,
    Variant,
    plan,
    plan_in_bands,
)
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.sizes import Size
from torch import Tensor

STYLE_LAYERS = [f"relu{block}_1" for block in range(1, 6)]


def test_nothing_beyond_the_last_layer_is_planned():
    steps = plan(["relu2_1", "relu1_1"], REFERENCE_VARIANT, Backend.NATIVE)
    assert [step.conv for step in steps] == ["conv1_1", "conv1_2", "conv2_1"]
    assert [step.pooling for step in steps] == [None, Pooling.MAX, None]
    assert [step.taps for step in steps] == [{"relu1_1"}, set(), {"relu2_1"}]


@pytest.mark.parametrize("layer", ["conv1_2", "relu1_2"])
def test_what_is_visited_is_not_fused_with_the_pooling_after_it(layer: str):
    _, step, _ = plan([layer, "relu2_1"], REFERENCE_VARIANT, Backend.NATIVE)
    assert step.pooling is Pooling.MAX
    assert step.epilogue is None


@pytest.mark.parametrize("pooling", [Pooling.MAX, Pooling.AVERAGE])
@pytest.mark.parametrize("layers", [["relu2_1"], STYLE_LAYERS])
def test_the_convolutions_before_the_first_pooling_are_done_in_bands(pooling: Pooling, layers: list[str]):
    pair, *others = plan_in_bands(layers, Variant(pooling), Backend.NATIVE)
    whole = plan(layers, Variant(pooling), Backend.NATIVE)
    assert isinstance(pair, PairStep)
    assert (pair.first, pair.second, *others) == whole
    assert pair.tap == (layers[0] if layers[0] == "relu1_1" else None)


@pytest.mark.parametrize("layer", ["conv1_1", "conv1_2", "relu1_2"])
def test_other_layers_before_the_first_pooling_are_visited_by_steps_of_their_own(layer: str):
    for layers in ([layer], [layer, "relu2_1"]):
        steps = plan_in_bands(layers, REFERENCE_VARIANT, Backend.NATIVE)
        assert steps == plan(layers, REFERENCE_VARIANT, Backend.NATIVE)


def test_other_poolings_and_backends_are_not_done_in_bands():
    for pooling, backend in [(Pooling.L2, Backend.NATIVE), *((pooling, Backend.TORCH) for pooling in Pooling)]:
        assert plan_in_bands(STYLE_LAYERS, Variant(pooling), backend) == plan(STYLE_LAYERS, Variant(pooling), backend)


def test_the_native_kernel_keeps_a_bit_where_torch_keeps_a_number():
    size = Size(64, 48)
    native, torchs = (plan(["relu3_1"], REFERENCE_VARIANT, backend)[2] for backend in (Backend.NATIVE, Backend.TORCH))
    assert (native.kept, torchs.kept) == ({Kept.RELU_BITS}, {Kept.RECTIFIED})
    assert torchs.kept_bytes(size) == 32 * native.kept_bytes(size)


@pytest.mark.parametrize("backend", list(Backend))
@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("layers", [["relu2_1", "relu3_1", "relu4_2"], ["relu1_2", "relu2_2", "relu3_1"], ["relu1_2"]])
def test_what_autograd_keeps_is_what_the_plan_says(
    weights: Weights, backend: Backend, pooling: Pooling, layers: list[str]
):
    if backend is Backend.NATIVE and not NATIVE:
        pytest.skip("the native kernel was not built")
    model, size = Vgg19(weights, "cpu"), Size(64, 96)
    model.backend = backend
    variant = Variant(pooling, Padding.REFLECT)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        is_of_picture = tensor.ndim < 4 or tensor.shape[1] == 3
        if not is_of_picture:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def visit(_layer: str, features: Tensor, _window: Window) -> list[Tensor]:
        return [features.square().sum()]

    pixels = torch.rand(1, 3, size.height, size.width).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        visited = model.visit_features(pixels, layers, visit, variant)
    planned = sum(step.kept_bytes(size) for step in plan_in_bands(layers, variant, backend))
    assert visited.keys() == set(layers)
    if pooling is Pooling.L2:
        # What the pooling holds for a moment counts as kept, too.
        assert planned / 2 <= sum(kept.values()) <= planned
    else:
        assert sum(kept.values()) == planned
