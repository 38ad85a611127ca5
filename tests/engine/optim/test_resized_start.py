import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nst_service.engine import scales as scales_module
from nst_service.engine.choices import OptimizerKind
from nst_service.engine.errors import SnapshotError
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.resized_start import ResizedStart, resize_start
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import TransferOptions
from nst_service.engine.scales import step_pixels
from nst_service.engine.sizes import Size, fit
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from torch.nn import functional

from tests.limits import LIMITS

MakeSpec = Callable[..., TransferSpec]


@pytest.fixture
def make_spec(monkeypatch: pytest.MonkeyPatch, content_png: bytes, style_png: bytes) -> MakeSpec:
    monkeypatch.setattr(scales_module, "_LEAST_EDGE", 8)

    def make(**options: Any) -> TransferSpec:
        small = {
            "image_size": 48,
            "iterations": 6,
            "content_layers": {"relu1_2": 1.0},
            "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0},
        }
        styles = (StyleInput(data=style_png),)
        return prepare(
            TransferRequest(content=content_png, styles=styles, options=TransferOptions(**small | options)),
            LIMITS,
            LAYERS,
        )

    return make


def smaller(spec: TransferSpec, edge: int = 32) -> TransferSpec:
    return spec.reduced(fit(spec.content.size, edge))


def at(spec: TransferSpec, model: Vgg19, iteration: int) -> Iterate:
    return next(iterate for iterate in optimize(spec, model) if iterate.iteration == iteration)


@pytest.mark.parametrize(
    "options", [{}, {"optimizer": OptimizerKind.ADAM}, {"averaging": 0.5}, {"scales": 2}, {"scales": 3}]
)
def test_a_transfer_goes_on_at_a_smaller_size_from_its_best_picture_and_counts_on(
    make_spec: MakeSpec, model: Vgg19, options: dict[str, Any]
):
    spec = make_spec(**options)
    for iteration in (2, 4):
        iterate = at(spec, model, iteration)
        resized = resize_start(Snapshot.from_bytes(b"".join(iterate.snapshot().to_buffers())), smaller(spec))
        assert isinstance(resized, ResizedStart)
        rest = list(optimize(smaller(spec), model, start=resized))
        steps = [step.iteration for step in rest]
        # Where a scale was done, its last step is taken once more.
        assert steps == list(range(steps[0], 7))
        assert iteration <= steps[0] <= iteration + 1
        assert rest[-1].result().shape == (1, 3, 25, 32)
        first = rest[0].evaluation.pixels
        assert first.shape[-1] < iterate.size.width
        seen = functional.interpolate(iterate.picture(), first.shape[-2:], mode="bicubic", antialias=True)
        assert (first - seen).abs().mean() < 0.02


def test_a_resized_start_begins_better_than_the_content(make_spec: MakeSpec, model: Vgg19):
    spec = make_spec(iterations=20)
    resized = resize_start(at(spec, model, 15).snapshot(), smaller(spec))
    first = next(optimize(smaller(spec), model, start=resized))
    assert first.evaluation.loss < 0.5 * next(optimize(smaller(spec), model)).evaluation.loss


def test_fewer_pixels_are_expected_to_take_less(make_spec: MakeSpec, model: Vgg19):
    spec = make_spec()
    once, twice = smaller(spec), smaller(spec, 24)
    # So long that what the test takes is nothing beside it.
    snapshot = dataclasses.replace(at(spec, model, 3).snapshot(), seconds=3e9)
    for start, now in ((snapshot, once), (resize_start(snapshot, once), twice)):
        first = next(optimize(now, model, start=resize_start(start, now)))
        share = step_pixels(now.content.size) / step_pixels(spec.content.size)
        assert first.seconds == pytest.approx(3e9)
        assert first.next_seconds == pytest.approx(3e9 * share / 4, rel=1e-3)
        again = next(optimize(now, model, start=Snapshot.from_bytes(b"".join(first.snapshot().to_buffers()))))
        assert again.eta_seconds == first.eta_seconds == pytest.approx(2 * first.next_seconds)


def test_a_transfer_at_the_size_of_its_snapshot_stays_as_it_is(make_spec: MakeSpec, model: Vgg19):
    spec = make_spec(scales=2)
    for iteration in (2, 5):
        snapshot = at(spec, model, iteration).snapshot()
        assert resize_start(snapshot, spec) is snapshot


def test_a_resized_start_may_become_smaller_still(make_spec: MakeSpec, model: Vgg19):
    spec = make_spec()
    resized = resize_start(at(spec, model, 3).snapshot(), smaller(spec))
    again = resize_start(resized, smaller(spec, 24))
    assert (again.size, again.done, again.iteration) == (Size(24, 18), 3, 3)
    assert resize_start(again, smaller(spec, 24)) is again


def test_snapshots_of_a_transfer_that_went_on_smaller_are_of_its_size(make_spec: MakeSpec, model: Vgg19):
    spec = make_spec(iterations=8)
    *_, last = steps = list(
        optimize(smaller(spec), model, start=resize_start(at(spec, model, 3).snapshot(), smaller(spec)))
    )
    snapshot = next(optimize(smaller(spec), model, start=resize_start(at(spec, model, 3).snapshot(), smaller(spec))))
    *_, again = optimize(smaller(spec), model, start=Snapshot.from_bytes(b"".join(snapshot.snapshot().to_buffers())))
    assert [step.iteration for step in steps] == [4, 5, 6, 7, 8]
    assert torch.equal(again.result(), last.result())


@pytest.mark.parametrize("change", [{"scale": 3}, {"scale": 0}, {"done": 9}, {"done": -1}, {"iteration": 0}])
def test_a_resized_start_of_another_transfer_is_refused(make_spec: MakeSpec, model: Vgg19, change: dict[str, int]):
    spec = make_spec(scales=2)
    resized = resize_start(at(spec, model, 2).snapshot(), smaller(spec))
    with pytest.raises(SnapshotError):
        next(optimize(smaller(spec), model, start=dataclasses.replace(resized, **change)))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_every_layer_has_a_feature_at_the_least_size(make_spec: MakeSpec, model: Vgg19, scales: int):
    layers = {"relu3_1": 1.0}
    spec = make_spec(scales=scales, content_layers=layers, style_layers=layers)
    assert spec.options.scales == scales
    last = list(optimize(smaller(spec, spec.outline.least_edge), model))[-1]
    assert last.result().isfinite().all()
