import dataclasses
import itertools
import time

import pytest
import torch
from nst_service.engine.choices import Init, OptimizerKind
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.transfer import TargetProgress, TerminationReason, optimize, transfer
from nst_service.engine.options import TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, prepare

from tests.limits import LIMITS


@pytest.fixture
def request_(content_png: bytes, style_png: bytes) -> TransferRequest:
    options = TransferOptions(iterations=8, image_size=48)
    return TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=options)


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
@pytest.mark.parametrize("init", [Init.CONTENT, Init.RANDOM, Init.STYLE])
def test_the_loss_falls(request_: TransferRequest, model: Vgg19, optimizer: OptimizerKind, init: Init):
    options = dataclasses.replace(request_.options, optimizer=optimizer, init=init)
    iterates = list(optimize(prepare(dataclasses.replace(request_, options=options), LIMITS, LAYERS), model))
    assert [iterate.iteration for iterate in iterates] == list(range(1, 9))
    assert iterates[-1].best.loss < 0.7 * iterates[0].evaluation.loss


def test_the_same_seed_gives_the_same_pixels_and_another_does_not(request_: TransferRequest, model: Vgg19):
    def pixels(seed: int) -> torch.Tensor:
        options = dataclasses.replace(request_.options, init=Init.RANDOM, seed=seed, iterations=3)
        *_, last = optimize(prepare(dataclasses.replace(request_, options=options), LIMITS, LAYERS), model)
        return last.best.pixels

    assert torch.equal(pixels(1), pixels(1))
    assert not torch.equal(pixels(1), pixels(2))


@pytest.mark.parametrize(("tile", "parts"), [(None, 2), (32, 4 + 4)])
def test_the_targets_are_computed_part_by_part(request_: TransferRequest, model: Vgg19, tile: int | None, parts: int):
    steps = list(transfer(prepare(request_, LIMITS, LAYERS), model, tile))
    preparing = [step for step in steps if isinstance(step, TargetProgress)]
    assert preparing == steps[: len(preparing)]
    assert [step.part for step in preparing] == list(range(1, parts + 1))
    assert {(step.parts, step.scale, step.scales) for step in preparing} == {(parts, 1, 1)}


def test_what_is_not_needed_is_no_part_of_the_targets(request_: TransferRequest, model: Vgg19):
    for options in ({"content_weight": 0.0}, {"style_weight": 0.0}):
        changed = dataclasses.replace(request_, options=dataclasses.replace(request_.options, **options))
        first, second, *_ = transfer(prepare(changed, LIMITS, LAYERS), model)
        assert isinstance(first, TargetProgress)
        assert first.parts == 1
        assert not isinstance(second, TargetProgress)


def test_time_between_the_steps_counts_neither_as_work_nor_against_the_budget(
    request_: TransferRequest, model: Vgg19, monkeypatch: pytest.MonkeyPatch
):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    options = dataclasses.replace(request_.options, time_budget_seconds=500.0)
    spec = prepare(dataclasses.replace(request_, options=options), LIMITS, LAYERS)
    iterates = []
    for iterate in optimize(spec, model):
        iterates.append(iterate)
        # Others have the device.
        clock = itertools.count(next(clock) + 1000)
    assert [iterate.iteration for iterate in iterates] == list(range(1, 9))
    assert iterates[-1].termination is TerminationReason.ITERATIONS
    assert iterates[-1].seconds < 100
    assert all(iterate.eta_seconds < 100 for iterate in iterates)
