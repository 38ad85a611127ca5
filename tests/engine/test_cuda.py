import dataclasses
from collections.abc import Callable

import pytest
import torch
from nst_service.engine.choices import OptimizerKind, Pooling, Preset, StyleStatisticKind
from nst_service.engine.devices import available_bytes, resolve_devices, resolve_precision, set_up_process
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.evaluation import Evaluation
from nst_service.engine.optim import stage as stage_module
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import TransferOptions
from nst_service.engine.sizes import Size
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from torch import Tensor

from tests.limits import LIMITS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def _exact() -> None:
    if torch.cuda.is_available():
        set_up_process(resolve_devices("cuda"), Precision.FLOAT32)


@pytest.fixture(scope="module")
def on_gpu(weights: Weights) -> Vgg19:
    return Vgg19(weights, resolve_devices("cuda")[0])


@pytest.fixture
def make_spec(content_png: bytes, style_png: bytes) -> Callable[..., TransferSpec]:
    def make(preset: Preset = Preset.BALANCED, **options) -> TransferSpec:
        small = {"iterations": 40, "image_size": 96, "scales": 1}
        made = TransferOptions.from_preset(preset, **{**small, **options})
        request = TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=made)
        return prepare(request, LIMITS, LAYERS)

    return make


@pytest.fixture
def spec(make_spec: Callable[..., TransferSpec]) -> TransferSpec:
    return make_spec()


def evaluated(spec: TransferSpec, network: Vgg19) -> Evaluation:
    canvas = build_canvas(spec, network.device)
    return build_criterion(spec, network, canvas)((canvas.content * 0.8 + 0.1).clamp(0, 1))


@pytest.mark.parametrize(
    "options",
    [
        {"preset": preset, "pooling": pooling, "style_loss": style_loss}
        for preset in (Preset.REFERENCE, Preset.BALANCED)
        for pooling in Pooling
        for style_loss in StyleStatisticKind
    ],
)
def test_a_gpu_computes_what_a_cpu_does(
    make_spec: Callable[..., TransferSpec], model: Vgg19, on_gpu: Vgg19, options: dict
):
    spec = make_spec(**options)
    theirs, ours = evaluated(spec, on_gpu), evaluated(spec, model)
    assert theirs.loss == pytest.approx(ours.loss, rel=1e-3)
    assert (theirs.gradient.cpu() - ours.gradient).norm() < 1e-2 * ours.gradient.norm()


@pytest.mark.parametrize(
    ("precision", "tolerances"), [(Precision.TF32, (0.01, 0.05)), (Precision.BFLOAT16, (0.05, 0.15))]
)
@pytest.mark.parametrize("style_loss", list(StyleStatisticKind))
def test_less_precision_is_near_to_all_of_it(
    make_spec: Callable[..., TransferSpec],
    weights: Weights,
    precision: Precision,
    tolerances: tuple[float, float],
    style_loss: StyleStatisticKind,
):
    spec, device = make_spec(style_loss=style_loss), resolve_devices("cuda")[0]
    exact = evaluated(spec, Vgg19(weights, device))
    set_up_process([device], resolve_precision(precision, [device]))
    rounded = evaluated(spec, Vgg19(weights, device, precision))
    assert rounded.gradient.dtype is torch.float32
    assert 0 < abs(rounded.loss - exact.loss) < tolerances[0] * exact.loss
    assert (rounded.gradient - exact.gradient).norm() < tolerances[1] * exact.gradient.norm()


@pytest.mark.parametrize("precision", list(Precision))
def test_a_transfer_on_a_gpu_is_the_same_every_time(spec: TransferSpec, weights: Weights, precision: Precision):
    device = resolve_devices("cuda")[0]
    set_up_process([device], precision)
    network = Vgg19(weights, device, precision)
    one, other = ([*optimize(spec, network)][-1].result() for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize("options", [{}, {"averaging": 0.5}, {"optimizer": OptimizerKind.ADAM, "learning_rate": 0.05}])
def test_recorded_steps_are_those_that_would_be_taken_one_by_one(
    make_spec: Callable[..., TransferSpec], on_gpu: Vgg19, monkeypatch: pytest.MonkeyPatch, options: dict
):
    spec = make_spec(**options, scales=2)
    *_, recorded = optimize(spec, on_gpu)
    monkeypatch.setattr(stage_module, "_STEPS_BEFORE_RECORDING", 10**6)
    one_by_one = list(optimize(spec, on_gpu))
    assert [iterate.iteration for iterate in one_by_one] == list(range(1, 41))
    assert torch.equal(recorded.result(), one_by_one[-1].result())
    assert recorded.best.loss == one_by_one[-1].best.loss


def test_several_steps_are_taken_at_once_but_none_beyond_a_preview(
    make_spec: Callable[..., TransferSpec], on_gpu: Vgg19
):
    iterations = [each.iteration for each in optimize(make_spec(preview_every=7), on_gpu)]
    assert len(iterations) < 40
    assert {7, 14, 21, 28, 35, 40} <= set(iterations)


@pytest.mark.parametrize("history", [True, False])
def test_a_transfer_on_a_gpu_goes_on_from_a_snapshot(spec: TransferSpec, on_gpu: Vgg19, history: bool):
    snapshots, last = [], None
    for last in optimize(spec, on_gpu):
        snapshots.append(last.snapshot(history=history))
    early = next(snapshot for snapshot in snapshots if snapshot.iteration > 5)
    *_, again = optimize(spec, on_gpu, start=Snapshot.from_bytes(b"".join(early.to_buffers())))
    assert again.iteration == last.iteration
    assert again.best.loss == pytest.approx(last.best.loss, rel=0.02 if history else 0.5)


def test_no_later_step_on_a_gpu_changes_a_snapshot(spec: TransferSpec, on_gpu: Vgg19):
    at_once, snapshots = [], []
    for iterate in optimize(spec, on_gpu):
        snapshots.append(iterate.snapshot())
        at_once.append(b"".join(snapshots[-1].to_buffers()))
    assert [b"".join(snapshot.to_buffers()) for snapshot in snapshots] == at_once


def test_losses_that_are_not_finite_end_a_transfer_on_a_gpu(
    spec: TransferSpec, on_gpu: Vgg19, monkeypatch: pytest.MonkeyPatch
):
    evaluate = Criterion.__call__

    def spoilt(criterion: Criterion, pixels: Tensor) -> Evaluation:
        evaluation = evaluate(criterion, pixels)
        return dataclasses.replace(evaluation, values=evaluation.values * torch.nan)

    steps = iter(optimize(spec, on_gpu))
    next(steps)
    monkeypatch.setattr(Criterion, "__call__", spoilt)
    with pytest.raises(NonFiniteLossError):
        list(steps)


def test_tiles_on_a_gpu_give_the_gradient_of_the_whole(spec: TransferSpec, on_gpu: Vgg19):
    large = dataclasses.replace(spec, content=spec.content.resized(Size(300, 200)))
    canvas = build_canvas(large, on_gpu.device)
    whole, tiled = (build_criterion(large, on_gpu, canvas, tile)(canvas.content + 0.1) for tile in (None, 64))
    assert (tiled.gradient - whole.gradient).norm() < 0.01 * whole.gradient.norm()


def test_the_memory_of_a_gpu_is_known():
    assert available_bytes(resolve_devices("cuda")[0]) > 0
