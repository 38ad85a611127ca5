from collections.abc import Collection

import pytest
import torch
from nst_service.engine.choices import ColorMode, Padding, Pooling, StyleStatisticKind
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.plan import REFERENCE_VARIANT, Variant
from nst_service.engine.network.vgg import FeatureVisitor, Vgg19, Visits
from nst_service.engine.objective.style_cache import StyleCache, StyleKey
from nst_service.engine.optim.transfer import Iterate, TargetProgress, transfer
from nst_service.engine.options import TransferOptions
from nst_service.engine.sizes import Size
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from torch import Tensor

from tests.limits import LIMITS

PLENTY = 2**30


class CountingVgg(Vgg19):
    """Counts the pictures and tiles that pass through it without a gradient: those of the targets."""

    passes = 0

    def features(
        self, pixels: Tensor, layers: Collection[str], variant: Variant = REFERENCE_VARIANT
    ) -> dict[str, Tensor]:
        self.passes += not torch.is_grad_enabled()
        return super().features(pixels, layers, variant)

    def visit_features(
        self, pixels: Tensor, layers: Collection[str], visit: FeatureVisitor, variant: Variant = REFERENCE_VARIANT
    ) -> Visits:
        self.passes += not torch.is_grad_enabled()
        return super().visit_features(pixels, layers, visit, variant)


@pytest.fixture
def counting(weights) -> CountingVgg:
    return CountingVgg(weights, "cpu")


@pytest.fixture
def make_spec(content_png: bytes, style_png: bytes):
    def make(content: bytes = content_png, style: bytes = style_png, **options) -> TransferSpec:
        return prepare(
            TransferRequest(
                content=content,
                styles=(StyleInput(data=style),),
                options=TransferOptions(**{"image_size": 48, "iterations": 2} | options),
            ),
            LIMITS,
            LAYERS,
        )

    return make


def passes(model: CountingVgg, spec: TransferSpec, styles: StyleCache | None, tile: int | None = None) -> int:
    """Return how often the targets of a transfer go through the network."""
    before = model.passes
    for step in transfer(spec, model, tile, styles):
        if isinstance(step, Iterate):
            break
    return model.passes - before


def test_a_style_that_comes_again_is_not_looked_at_again(make_spec, counting: CountingVgg):
    styles = StyleCache(PLENTY)
    assert passes(counting, make_spec(), styles) == 2
    assert passes(counting, make_spec(), styles) == 1
    assert passes(counting, make_spec(content_weight=0.0), styles) == 0
    assert passes(counting, make_spec(), None) == 2


def test_a_style_is_known_at_every_scale(make_spec, counting: CountingVgg):
    styles = StyleCache(PLENTY)
    spec = make_spec(image_size=192, scales=2)
    for expected in (4, 2):
        before = counting.passes
        done = list(transfer(spec, counting, None, styles))
        assert counting.passes - before == expected
    # All parts are told of as done nevertheless.
    assert [step.part for step in done if isinstance(step, TargetProgress)] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"style_layers": {"relu1_1": 1.0, "relu2_1": 1.0}},
        {"style_loss": StyleStatisticKind.MOMENTS},
        {"pooling": Pooling.AVERAGE},
        {"padding": Padding.REFLECT},
        {"color": ColorMode.MATCH},
        {"image_size": 64},
    ],
)
def test_a_style_that_is_looked_at_in_another_way_is_looked_at(make_spec, counting: CountingVgg, options: dict):
    styles = StyleCache(PLENTY)
    passes(counting, make_spec(), styles)
    assert passes(counting, make_spec(**options), styles) == 2
    assert passes(counting, make_spec(), styles) == 1


def test_the_seed_matters_where_directions_are_drawn(make_spec, counting: CountingVgg):
    styles = StyleCache(PLENTY)
    sliced = {"style_loss": StyleStatisticKind.SLICED_WASSERSTEIN}
    assert [passes(counting, make_spec(seed=seed, **sliced), styles) for seed in (0, 1, 0)] == [2, 2, 1]
    assert [passes(counting, make_spec(seed=seed), styles) for seed in (0, 1)] == [2, 1]


def test_a_style_in_the_colours_of_another_content_is_another(make_spec, counting: CountingVgg, style_png: bytes):
    styles = StyleCache(PLENTY)
    passes(counting, make_spec(color=ColorMode.MATCH), styles)
    assert passes(counting, make_spec(content=style_png, color=ColorMode.MATCH), styles) == 2


def test_what_tiles_gave_is_not_taken_for_the_whole(make_spec, counting: CountingVgg):
    styles = StyleCache(PLENTY)
    assert [passes(counting, make_spec(), styles, tile) for tile in (32, None, 32)] == [4 + 4 + 4, 2, 4 + 4]


@pytest.mark.parametrize("loss", list(StyleStatisticKind))
def test_a_result_does_not_depend_on_what_ran_before(make_spec, model: Vgg19, loss: StyleStatisticKind):
    spec = make_spec(style_loss=loss, iterations=4)
    styles = StyleCache(PLENTY)
    results = []
    for cache in (None, styles, styles):
        *_, last = transfer(spec, model, None, cache)
        results.append(last.result())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def key(name: str) -> StyleKey:
    return StyleKey(name, Size(8, 8), ("relu1_1",), StyleStatisticKind.GRAM, 0, REFERENCE_VARIANT, None, "", "cpu")


def test_those_that_were_not_used_for_the_longest_time_are_forgotten():
    cache = StyleCache(max_bytes=100)
    statistics = {"relu1_1": torch.zeros(10)}
    cache.put(key("a"), statistics)
    cache.put(key("b"), statistics)
    assert cache.get(key("a"))
    cache.put(key("c"), statistics)
    assert [bool(cache.get(key(name))) for name in "abc"] == [True, False, True]
    assert cache.held_bytes == 80


def test_what_is_larger_than_the_cache_displaces_nothing():
    cache = StyleCache(max_bytes=100)
    cache.put(key("a"), {"relu1_1": torch.zeros(10)})
    cache.put(key("b"), {"relu1_1": torch.zeros(26)})
    assert [bool(cache.get(key(name))) for name in "ab"] == [True, False]


def test_the_key_tells_weights_and_devices_apart():
    assert len({key("a"), key("a")._replace(weights_sha256="ff"), key("a")._replace(device="cuda:0")}) == 3
