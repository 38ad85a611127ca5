import dataclasses
import io
from collections.abc import Mapping

import pytest
import torch
from nst_service.engine.choices import (
    ColorMode,
    Init,
    OptimizerKind,
    OutputFormat,
    Padding,
    Pooling,
    Preset,
    StyleStatisticKind,
)
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.stored_kernel import StoredKernel
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.objective.losses import LossKind
from nst_service.engine.optim.transfer import Iterate, TerminationReason, optimize
from nst_service.engine.options import TransferOptions, transfer_violations
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.sizes import Size
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from PIL import Image, ImageOps

from tests.limits import LIMITS


@pytest.fixture
def request_(content_png: bytes, style_png: bytes) -> TransferRequest:
    options = TransferOptions(iterations=3, image_size=48)
    return TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=options)


def spec_of(request: TransferRequest, **options) -> TransferSpec:
    changed = dataclasses.replace(request.options, **options)
    return prepare(dataclasses.replace(request, options=changed), LIMITS, LAYERS)


def run(request: TransferRequest, model: Vgg19, **options) -> list[Iterate]:
    return list(optimize(spec_of(request, **options), model))


def left_half_white(width: int = 48, height: int = 37) -> bytes:
    pixels = torch.zeros(1, 3, height, width)
    pixels[..., : width // 2] = 1
    return encode(pixels, format=OutputFormat.PNG, quality=95)


@pytest.mark.parametrize(
    "options",
    [
        {"content_weight": 50.0},
        {"style_weight": 1000.0},
        {"tv_weight": 10.0},
        {"laplacian_weight": 1e6},
        {"content_layers": {"conv3_2": 1.0}},
        {"style_layers": {"conv2_2": 1.0, "relu3_4": 0.5}},
        {"style_loss": StyleStatisticKind.MOMENTS},
        {"style_loss": StyleStatisticKind.SLICED_WASSERSTEIN},
        {"normalize": True},
        {"pooling": Pooling.AVERAGE},
        {"pooling": Pooling.L2},
        {"padding": Padding.REFLECT},
        {"color": ColorMode.MATCH},
        {"color": ColorMode.LUMINANCE},
        {"color": ColorMode.YIQ},
        {"color": ColorMode.LAB},
        {"iterations": 12},
        {"optimizer": OptimizerKind.ADAM},
        {"learning_rate": 0.5},
        {"lbfgs_history": 2},
        {"averaging": 0.9},
        {"init": Init.RANDOM},
        {"init": Init.STYLE},
        {"image_size": 40},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
def test_every_option_changes_the_picture(request_: TransferRequest, model: Vgg19, options: Mapping[str, object]):
    request_ = dataclasses.replace(request_, options=dataclasses.replace(request_.options, iterations=8))
    plain = run(request_, model)[-1].result()
    changed = run(request_, model, **options)[-1].result()
    assert changed.isfinite().all()
    assert changed.shape != plain.shape or (changed - plain).abs().max() > 0.002


def test_a_preset_gives_what_is_not_given():
    texture = TransferOptions.from_preset(Preset.TEXTURE, iterations=7)
    assert (texture.preset, texture.content_weight, texture.init) == (Preset.TEXTURE, 0.0, Init.RANDOM)
    assert texture.iterations == 7


@pytest.mark.parametrize("preset", list(Preset))
def test_every_preset_is_valid_and_runs(request_: TransferRequest, model: Vgg19, preset: Preset):
    options = TransferOptions.from_preset(preset)
    assert not list(transfer_violations(options, LIMITS, LAYERS))
    small = dataclasses.replace(request_, options=TransferOptions.from_preset(preset, image_size=48, iterations=6))
    iterates = list(optimize(prepare(small, LIMITS, LAYERS), model))
    assert iterates[-1].best.loss < iterates[0].best.loss
    assert iterates[-1].result().isfinite().all()


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("iterations", [1, 2])
def test_every_preset_has_no_more_scales_than_iterations(
    request_: TransferRequest, model: Vgg19, preset: Preset, iterations: int
):
    options = TransferOptions.from_preset(preset, image_size=128, iterations=iterations)
    request_ = dataclasses.replace(request_, options=options)
    assert sum(prepare(request_, LIMITS, LAYERS).options.scale_iterations) == iterations
    assert run(request_, model)[-1].iteration == iterations


def test_scales_that_are_given_need_an_iteration_each():
    options = TransferOptions.from_preset(Preset.BALANCED, iterations=2, scales=3)
    (violation,) = transfer_violations(options, LIMITS, LAYERS)
    assert violation.field == "options.iterations"


def test_a_strength_multiplies_the_weight_of_the_style():
    factors = [TransferOptions(strength=strength).strength_factor for strength in (0, 0.25, 0.5, 0.75, 1)]
    assert factors == pytest.approx([0.01, 0.1, 1, 10, 100])
    weak = TransferOptions(strength=0.25, style_weight=20.0, style_layers={"relu1_1": 2.0})
    assert weak.active_style_layers == {"relu1_1": pytest.approx(4.0)}


def test_the_middle_of_strength_and_stroke_size_changes_nothing():
    options = TransferOptions()
    assert (options.strength_factor, options.stroke_factor) == (1.0, 1.0)


def test_a_stroke_size_multiplies_the_size_of_every_style(request_: TransferRequest):
    def longest_edges(stroke_size: float) -> list[int]:
        options = TransferOptions(image_size=64, stroke_size=stroke_size)
        spec = prepare(dataclasses.replace(request_, options=options), LIMITS, LAYERS)
        return [max(style.picture.size) for style in spec.styles]

    assert [longest_edges(size) for size in (0, 0.5, 1)] == [[32], [64], [128]]


def test_a_texture_does_not_look_at_the_content_but_for_its_size(request_: TransferRequest, model: Vgg19):
    texture = {"content_weight": 0.0, "init": Init.RANDOM}
    other = dataclasses.replace(request_, content=left_half_white())
    assert torch.equal(run(request_, model, **texture)[-1].result(), run(other, model, **texture)[-1].result())


def test_a_reconstruction_needs_no_style(request_: TransferRequest, model: Vgg19):
    bare = dataclasses.replace(request_, styles=())
    *_, last = run(bare, model, style_weight=0.0, init=Init.RANDOM)
    assert {term.kind for term in last.evaluation.terms} == {LossKind.CONTENT, LossKind.TOTAL_VARIATION}


def test_the_loss_of_normalized_options_does_not_know_the_scale_of_the_weights(
    request_: TransferRequest, weights: Weights, model: Vgg19
):
    factors = dict(zip(weights.convs, (0.5, 3.0, 0.1, 7.0, 2.0, 0.3) * 3, strict=False))
    product, convs = 1.0, {}
    for conv, (kernel, bias) in weights.convs.items():
        product *= factors[conv]
        convs[conv] = (StoredKernel(factors[conv] * kernel.dense()), product * bias)
    rescaled = Vgg19(dataclasses.replace(weights, convs=convs), "cpu")
    for loss in StyleStatisticKind:
        spec = spec_of(request_, normalize=True, style_loss=loss, pooling=Pooling.L2)
        canvas = build_canvas(spec, model.device)
        pixels = (canvas.content + 0.1).clamp(0, 1)
        ours, theirs = (build_criterion(spec, network, canvas)(pixels) for network in (model, rescaled))
        assert theirs.term_values() == pytest.approx(
            ours.term_values(), rel=1e-2 if loss is StyleStatisticKind.MOMENTS else 1e-3
        )
        assert (ours.gradient - theirs.gradient).norm() < 0.02 * ours.gradient.norm()


def test_two_styles_with_masks_each_stay_in_their_place(request_: TransferRequest, model: Vgg19):
    white, black = (
        encode(torch.full((1, 3, 40, 40), value), format=OutputFormat.PNG, quality=95) for value in (1.0, 0.0)
    )
    left = left_half_white()
    right = encode(
        1 - torch.zeros(1, 3, 37, 48).index_fill_(3, torch.arange(24), 1.0), format=OutputFormat.PNG, quality=95
    )
    styles = (StyleInput(data=white, mask=left), StyleInput(data=black, mask=right))
    guided = dataclasses.replace(request_, styles=styles)
    *_, last = run(guided, model, iterations=40, content_weight=0.0, style_layers={"relu1_1": 1.0, "relu2_1": 1.0})
    result = last.result()
    assert result[..., :20].mean() > result[..., 28:].mean() + 0.2


def test_the_content_stays_where_its_mask_is_black(request_: TransferRequest, model: Vgg19):
    masked = dataclasses.replace(request_, content_mask=left_half_white())
    spec = spec_of(masked)
    *_, last = optimize(spec, model)
    content = picture_to_tensor(spec.content)
    assert torch.equal(last.result()[..., 26:], content[..., 26:])
    assert (last.result()[..., :22] - content[..., :22]).abs().max() > 0.01


def test_a_reference_holds_the_result(request_: TransferRequest, model: Vgg19):
    held = dataclasses.replace(request_, reference=request_.content)
    free = run(request_, model, iterations=15)[-1].result()
    spec = spec_of(held, temporal_weight=1e6, iterations=15)
    *_, last = optimize(spec, model)
    content = picture_to_tensor(spec.content)
    assert (last.result() - content).abs().mean() < 0.5 * (free - content).abs().mean()


@pytest.mark.parametrize("style_loss", [StyleStatisticKind.MOMENTS, StyleStatisticKind.SLICED_WASSERSTEIN])
def test_what_a_content_mask_keeps_does_not_count_as_style(
    request_: TransferRequest, model: Vgg19, style_loss: StyleStatisticKind
):
    with Image.open(io.BytesIO(request_.content)) as opened:
        content = opened.convert("RGB")
    right = (content.width // 2 + 8, 0, *content.size)
    content.paste(ImageOps.invert(content.crop(right)), right)
    content.save(other := io.BytesIO(), "PNG")
    masked = dataclasses.replace(request_, content_mask=left_half_white())
    options = {"style_loss": style_loss, "content_weight": 0.0, "tv_weight": 0.0, "style_layers": {"relu1_1": 1.0}}

    def first_loss(request: TransferRequest) -> float:
        return run(request, model, iterations=1, **options)[0].evaluation.loss

    assert first_loss(dataclasses.replace(masked, content=other.getvalue())) == pytest.approx(first_loss(masked), 0.02)


def test_scales_are_worked_on_coarse_to_fine_and_the_result_has_full_size(
    content_png: bytes, style_png: bytes, model: Vgg19
):
    options = TransferOptions(iterations=5, scales=2, image_size=192)
    request = TransferRequest(
        content=content_png, styles=(StyleInput(data=style_png, options=_large()),), options=options
    )
    iterates = list(optimize(prepare(request, LIMITS, LAYERS), model))
    assert [(it.scale, it.size) for it in iterates] == 3 * [(1, Size(96, 74))] + 2 * [(2, Size(192, 148))]
    assert [it.iteration for it in iterates] == [1, 2, 3, 4, 5]
    assert {it.result().shape for it in iterates} == {(1, 3, 148, 192)}
    assert iterates[0].picture().shape == (1, 3, 74, 96)
    assert [it.preview(128).shape for it in iterates] == 3 * [(1, 3, 99, 128)] + 2 * [(1, 3, 148, 192)]
    assert {it.preview(1024).shape for it in iterates} == {(1, 3, 148, 192)}


def test_a_preview_of_a_coarse_scale_is_as_sharp_as_the_content(content_png: bytes, style_png: bytes, model: Vgg19):
    options = TransferOptions(iterations=2, scales=2, image_size=192, style_weight=1e-9)
    request = TransferRequest(
        content=content_png, styles=(StyleInput(data=style_png, options=_large()),), options=options
    )
    spec = prepare(request, LIMITS, LAYERS)
    coarse = next(optimize(spec, model))
    assert coarse.scale == 1
    torch.testing.assert_close(coarse.preview(192), picture_to_tensor(spec.content), atol=0.02, rtol=0)


def _large():
    from nst_service.engine.options import StyleOptions

    return StyleOptions(scale=2.0)


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
def test_an_optimizer_carries_what_it_learnt_to_the_next_scale(
    content_png: bytes, style_png: bytes, model: Vgg19, optimizer: OptimizerKind
):
    options = TransferOptions(iterations=12, scales=2, image_size=192, optimizer=optimizer)
    request = TransferRequest(
        content=content_png, styles=(StyleInput(data=style_png, options=_large()),), options=options
    )
    iterates = list(optimize(prepare(request, LIMITS, LAYERS), model))
    assert iterates[-1].best.loss < iterates[6].evaluation.loss


def test_scales_that_pictures_have_no_room_for_are_left_out(request_: TransferRequest):
    options = spec_of(request_, scales=4, iterations=9).options
    assert (options.scales, options.scale_iterations) == (1, (9,))


def test_a_loss_that_has_flattened_ends_the_transfer(request_: TransferRequest, model: Vgg19):
    iterates = run(request_, model, iterations=200, min_improvement=0.3)
    assert len(iterates) < 100
    assert iterates[-1].termination is TerminationReason.CONVERGED


def test_a_time_budget_ends_the_transfer_with_a_picture(request_: TransferRequest, model: Vgg19):
    iterates = run(request_, model, iterations=1000, time_budget_seconds=0.5)
    assert len(iterates) < 1000
    assert iterates[-1].termination is TerminationReason.TIME_BUDGET


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"scale_iterations": (1, 2)}, "options.scale_iterations"),
        ({"scales": 2, "scale_iterations": (0, 3)}, "options.scale_iterations"),
        ({"scales": 2, "scale_iterations": (1, 1)}, "options.scale_iterations"),
        ({"scales": 5}, "options.iterations"),
        ({"scales": 9}, "options.scales"),
        ({"averaging": 1.0}, "options.averaging"),
        ({"min_improvement": -0.1}, "options.min_improvement"),
        ({"time_budget_seconds": float("nan")}, "options.time_budget_seconds"),
        ({"laplacian_weight": float("inf")}, "options.laplacian_weight"),
        ({"min_image_size": -1}, "options.min_image_size"),
        ({"min_image_size": 65_501}, "options.min_image_size"),
    ],
)
def test_a_bad_option_is_named(request_: TransferRequest, options: dict, field: str):
    options = dataclasses.replace(request_.options, **options)
    assert {violation.field for violation in transfer_violations(options, LIMITS, LAYERS)} == {field}


def test_the_iterations_of_each_scale_say_how_many_scales_and_iterations_there_are():
    options = TransferOptions.from_preset(Preset.BALANCED, scale_iterations=(100, 50, 16, 6))
    assert (options.scales, options.iterations) == (4, 172)
