import dataclasses

import pytest
import torch
from nst_service.engine.devices import available_bytes, resolve_devices
from nst_service.engine.layers import LAYERS
from nst_service.engine.objective import build_canvas, build_criterion
from nst_service.engine.options import Limits, Preset, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from nst_service.engine.transfer import optimize
from nst_service.engine.vgg import Vgg19
from nst_service.engine.weights import Weights

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

LIMITS = Limits(max_input_pixels=10**6, max_image_size=512, max_iterations=1000, max_styles=2)


@pytest.fixture(scope="module")
def on_gpu(weights: Weights) -> Vgg19:
    return Vgg19(weights, resolve_devices("cuda")[0])


@pytest.fixture
def spec(content_png: bytes, style_png: bytes) -> TransferSpec:
    options = TransferOptions.from_preset(Preset.BALANCED, iterations=10, image_size=96)
    return prepare(
        TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=options), LIMITS, LAYERS
    )


def test_a_gpu_computes_what_a_cpu_does(spec: TransferSpec, model: Vgg19, on_gpu: Vgg19):
    values = []
    for network in (model, on_gpu):
        canvas = build_canvas(spec, network.device)
        evaluation = build_criterion(spec, network, canvas)((canvas.content + 0.1).clamp(0, 1))
        values.append((evaluation.loss, evaluation.gradient.cpu()))
    (loss, gradient), (gpu_loss, gpu_gradient) = values
    assert gpu_loss == pytest.approx(loss, rel=1e-2)
    assert (gpu_gradient - gradient).norm() < 0.05 * gradient.norm()


def test_a_transfer_on_a_gpu_is_the_same_every_time(spec: TransferSpec, on_gpu: Vgg19):
    one, other = (list(optimize(spec, on_gpu))[-1].result() for _ in range(2))
    assert torch.equal(one, other)


def test_tiles_on_a_gpu_give_the_gradient_of_the_whole(spec: TransferSpec, on_gpu: Vgg19):
    large = dataclasses.replace(spec, content=spec.content.resized((300, 200)))
    canvas = build_canvas(large, on_gpu.device)
    whole, tiled = (build_criterion(large, on_gpu, canvas, tile)(canvas.content + 0.1) for tile in (None, 64))
    assert (tiled.gradient - whole.gradient).norm() < 0.01 * whole.gradient.norm()


def test_the_memory_of_a_gpu_is_known():
    assert available_bytes(resolve_devices("cuda")[0]) > 0
