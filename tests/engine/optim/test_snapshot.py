import contextlib
import dataclasses
import itertools
import json
import math
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from nst_service.engine import scales as scales_module
from nst_service.engine.choices import ColorMode, Init, OptimizerKind, OutputFormat
from nst_service.engine.errors import SnapshotError
from nst_service.engine.memory.footprint import snapshot_bytes
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.style_cache import digest
from nst_service.engine.optim import snapshot as snapshot_module
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import Iterate, TargetProgress, TerminationReason, optimize, transfer
from nst_service.engine.options import TransferOptions
from nst_service.engine.pictures.encode import encode
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from safetensors.torch import load, save
from torch import Tensor

from tests.limits import LIMITS

ADAM = {"optimizer": OptimizerKind.ADAM}
RELEASED = Path(__file__).parent / "snapshots_0_1_0"
"""Snapshots that nst 0.1.0 wrote after five of nine iterations on a picture of 8 x 6 pixels."""
MASK = encode(torch.linspace(0, 1, 48).expand(1, 3, 37, 48), format=OutputFormat.PNG, quality=95)


@pytest.fixture
def make_spec(monkeypatch: pytest.MonkeyPatch, content_png: bytes, style_png: bytes) -> Callable[..., TransferSpec]:
    # Real scales are too large for tests that run everything from every step on.
    monkeypatch.setattr(scales_module, "_LEAST_EDGE", 8)

    def make(*, masked: bool = False, styles: int = 2, **options: object) -> TransferSpec:
        small = {
            "image_size": 48,
            "iterations": 6,
            "content_layers": {"relu1_2": 1.0},
            "style_layers": {"relu1_1": 1.0, "relu2_1": 1.0},
        }
        request = TransferRequest(
            content=content_png,
            styles=(StyleInput(data=style_png), StyleInput(data=content_png, mask=MASK if masked else None))[:styles],
            content_mask=MASK if masked else None,
            options=TransferOptions(**small | options),
        )
        return prepare(request, LIMITS, LAYERS)

    return make


@pytest.fixture
def steady_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that depends on nothing but what is done."""
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))


def told(iterate: Iterate) -> tuple[object, ...]:
    """All that an iterate says."""
    plain = [
        getattr(iterate, field.name)
        for field in dataclasses.fields(iterate)
        if field.type in (int, float) or field.name in ("size", "termination")
    ]
    evaluations = [
        (evaluation.loss, evaluation.term_values(), digest(evaluation.pixels), digest(evaluation.gradient))
        for evaluation in (iterate.evaluation, iterate.best)
    ]
    return *plain, *evaluations, digest(iterate.picture()), digest(iterate.result())


def followed(iterates: Iterable[Iterate]) -> tuple[list[tuple[object, ...]], list[Snapshot]]:
    """What the iterates of a transfer say, and a snapshot of each."""
    pairs = [(told(iterate), iterate.snapshot()) for iterate in iterates]
    return [said for said, _ in pairs], [snapshot for _, snapshot in pairs]


def snapshot_of(spec: TransferSpec, model: Vgg19, iteration: int = 2, *, history: bool = True) -> Snapshot:
    for iterate in optimize(spec, model):
        if iterate.iteration == iteration:
            return iterate.snapshot(history=history)
    raise AssertionError


def file_of(snapshot: Snapshot) -> bytes:
    return b"".join(snapshot.to_buffers())


def every_tensor(snapshot: Snapshot) -> dict[str, Tensor]:
    return load(file_of(snapshot))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lbfgs_history": 2, "init": Init.RANDOM, "seed": 5},
        {"averaging": 0.8},
        {"scales": 3, "iterations": 9},
        {"scales": 3, "iterations": 9, "averaging": 0.5, "color": ColorMode.MATCH},
        {"scales": 2, "masked": True, "color": ColorMode.LUMINANCE},
        {"scales": 2, "masked": True, "color": ColorMode.LAB},
        {"scales": 2, "iterations": 40, "min_improvement": 0.9},
        {"scales": 2, "iterations": 40, "time_budget_seconds": 60.0},
        ADAM,
        {**ADAM, "averaging": 0.8},
        {**ADAM, "scales": 3, "iterations": 9},
        {**ADAM, "scales": 2, "averaging": 0.5, "masked": True, "color": ColorMode.YIQ},
    ],
    ids=lambda options: " ".join(f"{name}={value}" for name, value in options.items()),
)
@pytest.mark.usefixtures("steady_clock")
def test_a_transfer_that_goes_on_says_what_the_uninterrupted_one_says(
    make_spec: Callable[..., TransferSpec], model: Vgg19, options: dict[str, Any]
):
    spec = make_spec(**options)
    said, snapshots = followed(optimize(spec, model))
    # From every step of the short ones; from every other or so of the long ones, which end early.
    for step in range(0, len(snapshots), 1 + len(snapshots) // 10):
        again, _ = followed(optimize(spec, model, start=Snapshot.from_bytes(file_of(snapshots[step]))))
        assert again == said[step:]


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
def test_a_step_to_a_loss_that_is_not_finite_is_taken_back_after_the_interruption_as_before(
    make_spec: Callable[..., TransferSpec], model: Vgg19, monkeypatch: pytest.MonkeyPatch, optimizer: OptimizerKind
):
    evaluate = Criterion.__call__
    calls = itertools.count(1)

    def broken(criterion: object, pixels: Tensor) -> object:
        evaluation = evaluate(criterion, pixels)
        return (
            dataclasses.replace(evaluation, values=evaluation.values * math.nan)
            if next(calls) in (3, 4)
            else evaluation
        )

    monkeypatch.setattr(Criterion, "__call__", broken)
    spec = make_spec(optimizer=optimizer)
    snapshots, results = [], []
    for iterate in optimize(spec, model):
        snapshots.append(iterate.snapshot())
        results.append(digest(iterate.result()))
    for step, snapshot in enumerate(snapshots, 1):
        calls = itertools.count(step + 1)
        *_, last = optimize(spec, model, start=snapshot)
        assert digest(last.result()) == results[-1]


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
def test_no_later_step_changes_a_snapshot(
    make_spec: Callable[..., TransferSpec], model: Vgg19, optimizer: OptimizerKind
):
    at_once, snapshots = [], []
    for iterate in optimize(make_spec(optimizer=optimizer, averaging=0.5, scales=2), model):
        snapshots.append(iterate.snapshot())
        at_once.append(file_of(snapshots[-1]))
    assert [file_of(snapshot) for snapshot in snapshots] == at_once


@pytest.mark.parametrize("optimizer", list(OptimizerKind))
def test_going_on_does_not_change_a_snapshot(
    make_spec: Callable[..., TransferSpec], model: Vgg19, optimizer: OptimizerKind
):
    spec = make_spec(optimizer=optimizer)
    snapshot = snapshot_of(spec, model)
    before = file_of(snapshot)
    first, second = ([told(iterate)[-1] for iterate in optimize(spec, model, start=snapshot)] for _ in range(2))
    assert first == second
    assert file_of(snapshot) == before


def test_its_iterate_comes_first_so_that_there_is_a_picture_before_the_targets(
    make_spec: Callable[..., TransferSpec], model: Vgg19
):
    spec = make_spec(scales=2)
    snapshot = snapshot_of(spec, model, iteration=4)
    first, *rest = transfer(spec, model, start=snapshot)
    assert isinstance(first, Iterate)
    assert first.iteration == 4
    assert [type(step) for step in rest] == 3 * [TargetProgress] + 2 * [Iterate]
    assert {step.scale for step in rest} == {2}


def test_the_targets_of_a_scale_that_has_ended_are_not_computed_again(
    make_spec: Callable[..., TransferSpec], model: Vgg19
):
    spec = make_spec(scales=2)
    _, *rest = transfer(spec, model, start=snapshot_of(spec, model, iteration=3))
    assert {step.scale for step in rest} == {2}
    [last] = transfer(spec, model, start=snapshot_of(spec, model, iteration=6))
    assert isinstance(last, Iterate)
    assert last.termination is TerminationReason.ITERATIONS


def test_the_time_before_counts_against_the_budget(make_spec: Callable[..., TransferSpec], model: Vgg19):
    spec = make_spec(time_budget_seconds=100.0)
    spent = dataclasses.replace(snapshot_of(spec, model), seconds=99.9)
    [only] = optimize(spec, model, start=spent)
    assert only.termination is TerminationReason.TIME_BUDGET


def test_a_transfer_may_go_on_in_tiles(make_spec: Callable[..., TransferSpec], model: Vgg19):
    spec = make_spec(scales=2)
    *_, whole = optimize(spec, model)
    for iteration in (2, 4):
        *_, tiled = optimize(spec, model, tile_size=16, start=snapshot_of(spec, model, iteration))
        assert tiled.iteration == whole.iteration
        assert (tiled.result() - whole.result()).abs().max() < 0.05


def test_a_snapshot_comes_back_from_its_bytes(make_spec: Callable[..., TransferSpec], model: Vgg19):
    for options in ({}, ADAM, {"averaging": 0.5}):
        data = file_of(snapshot_of(make_spec(**options), model))
        assert file_of(Snapshot.from_bytes(data)) == data


def test_a_transfer_goes_on_without_the_history_to_about_the_same_loss(
    make_spec: Callable[..., TransferSpec], model: Vgg19
):
    for options in ({"iterations": 12}, {**ADAM, "iterations": 12}):
        spec = make_spec(**options)
        light = snapshot_of(spec, model, iteration=6, history=False)
        *_, expected = optimize(spec, model)
        *_, last = optimize(spec, model, start=Snapshot.from_bytes(file_of(light)))
        assert last.iteration == expected.iteration
        assert last.best.loss < 1.5 * expected.best.loss


@pytest.mark.parametrize(
    ("name", "options"), [("lbfgs", {"min_improvement": 1e-6}), ("adam", {**ADAM, "averaging": 0.5})]
)
def test_a_snapshot_of_release_0_1_0_is_read_and_continued(
    make_spec: Callable[..., TransferSpec], model: Vgg19, name: str, options: dict[str, Any]
):
    data = (RELEASED / f"{name}.safetensors").read_bytes()
    snapshot = Snapshot.from_bytes(data)
    assert file_of(snapshot) == data
    spec = make_spec(styles=1, image_size=8, iterations=9, **options)
    resumed, *rest = optimize(spec, model, start=snapshot)
    assert [iterate.iteration for iterate in rest] == [6, 7, 8, 9]
    assert rest[-1].best.loss < 0.9 * resumed.best.loss
    # Those of the interrupted transfer; another processor may round them in another way.
    *_, last = optimize(spec, model)
    assert rest[-1].best.loss == pytest.approx(last.best.loss, rel=0.05)


def test_nothing_stands_twice_in_the_bytes(make_spec: Callable[..., TransferSpec], model: Vgg19):
    snapshot = snapshot_of(make_spec(), model, iteration=3)
    assert snapshot.best is snapshot.optimizer.accepted
    pictures = [tensor for tensor in every_tensor(snapshot).values() if tensor.ndim == 4]
    # Where it stands, the gradient there, where it goes, and two steps that it has learnt from.
    assert len(pictures) == 3 + 2 * len(snapshot.optimizer.pairs) == 7


@pytest.mark.parametrize("options", [{}, {"lbfgs_history": 3}, ADAM, {**ADAM, "averaging": 0.5}])
def test_the_bytes_are_no_more_than_estimated(
    make_spec: Callable[..., TransferSpec], model: Vgg19, options: dict[str, Any]
):
    spec = make_spec(**options)
    size = len(file_of(snapshot_of(spec, model, iteration=6)))
    assert size < snapshot_bytes(spec.options, spec.content.size) < 2 * size


class TestRefusals:
    @pytest.fixture
    def data(self, make_spec: Callable[..., TransferSpec], model: Vgg19) -> bytes:
        return file_of(snapshot_of(make_spec(), model))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"no snapshot",
            bytes(8),
            bytes(1000),
            struct.pack("<Q", 2**63) + b"{}",
            struct.pack("<Q", 2) + b"{}",
            save({"tensor": torch.zeros(3)}),
            save({"tensor": torch.zeros(3)}, {"nst_snapshot": "{}"}),
            save({"tensor": torch.zeros(3)}, {"nst_snapshot": "[" * 100_000}),
            MASK,
        ],
    )
    def test_what_is_no_snapshot_is_refused(self, data: bytes):
        with pytest.raises(SnapshotError, match="is no snapshot"):
            Snapshot.from_bytes(data)

    def test_a_truncated_snapshot_is_refused(self, data: bytes):
        for length in (*range(0, len(data), 997), len(data) - 1):
            with pytest.raises(SnapshotError):
                Snapshot.from_bytes(data[:length])

    def test_a_snapshot_with_a_bit_flipped_is_refused_or_another_one(self, data: bytes):
        header = 8 + int.from_bytes(data[:8], "little")
        for place in range(0, header, 13):
            flipped = bytearray(data)
            flipped[place] ^= 1 << place % 8
            with contextlib.suppress(SnapshotError):
                Snapshot.from_bytes(bytes(flipped))

    def test_another_version_is_refused_by_its_number(self, data: bytes, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(snapshot_module, "_VERSION", 4)
        with pytest.raises(SnapshotError, match="of version 3, the accepted version is 4"):
            Snapshot.from_bytes(data)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("scale", None),
            ("scale", 1.0),
            ("scale", True),
            ("scale", "1"),
            ("seconds", 1),
            ("least_losses", ["0"]),
            ("least_losses", 5),
            ("optimizer", {}),
            ("optimizer", None),
            ("optimizer", [1, 2]),
            ("best", {"pixels": "0", "gradient": "1", "terms": [["nonsense", ""]], "values": "2"}),
            ("average", "99"),
            ("average", ["0"]),
            ("average", 0),
        ],
    )
    def test_a_whole_file_that_says_what_we_never_wrote_is_refused(self, data: bytes, field: str, value: object):
        state = snapshot_module._state(data)
        state["snapshot"][field] = value
        with pytest.raises(SnapshotError, match="contradicts itself"):
            Snapshot.from_bytes(forged(load(data), state))

    def test_tensors_of_another_size_or_type_are_refused(self, data: bytes):
        state, tensors = snapshot_module._state(data), load(data)
        name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
        for wrong in (
            tensors[name][..., 1:],
            tensors[name][0],
            tensors[name].double(),
            tensors[name].bfloat16(),
            torch.zeros(0),
        ):
            with pytest.raises(SnapshotError, match="contradicts itself"):
                Snapshot.from_bytes(forged({**tensors, name: wrong.contiguous()}, state))
        with pytest.raises(SnapshotError, match="contradicts itself"):
            Snapshot.from_bytes(forged(tensors, {**state, "size": [48, 38]}))

    def test_terms_without_values_are_refused(self, data: bytes):
        state = snapshot_module._state(data)
        state["snapshot"]["best"]["terms"] = []
        with pytest.raises(SnapshotError, match="contradicts itself"):
            Snapshot.from_bytes(forged(load(data), state))

    @pytest.mark.parametrize("change", [{"scale": 0}, {"scale": 3}, {"done": 0}, {"done": 7}, {"iteration": 10**12}])
    def test_a_position_that_the_transfer_does_not_have_is_refused(
        self, make_spec: Callable[..., TransferSpec], model: Vgg19, change: dict[str, int]
    ):
        spec = make_spec()
        with pytest.raises(SnapshotError, match="of another transfer"):
            next(transfer(spec, model, start=dataclasses.replace(snapshot_of(spec, model), **change)))

    @pytest.mark.parametrize(
        "other",
        [
            {"image_size": 40},
            ADAM,
            {"averaging": 0.5},
            {"scales": 2},
            {"iterations": 3},
            {"lbfgs_history": 2},
        ],
    )
    def test_a_snapshot_of_another_transfer_is_refused(
        self, make_spec: Callable[..., TransferSpec], model: Vgg19, other: dict[str, Any]
    ):
        snapshot = snapshot_of(make_spec(), model, iteration=4)
        with pytest.raises(SnapshotError, match="of another transfer"):
            next(transfer(make_spec(**other), model, start=snapshot))


def forged(tensors: dict[str, Tensor], state: dict[str, Any]) -> bytes:
    """A whole file."""
    return save(tensors, {"nst_snapshot": json.dumps(state)})
