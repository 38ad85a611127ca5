import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
from nst_service.engine import scales as scales_module
from nst_service.engine.choices import Init, OutputFormat
from nst_service.engine.errors import InvalidRequestError
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.sizes import Size, fit
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare

from tests.limits import LIMITS

MakeSpec = Callable[..., TransferSpec]


@pytest.fixture
def request_(content_png: bytes, style_png: bytes) -> TransferRequest:
    options = TransferOptions(iterations=8, image_size=48)
    return TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=options)


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
        options = TransferOptions(**small | options)
        return prepare(TransferRequest(content=content_png, styles=styles, options=options), LIMITS, LAYERS)

    return make


def violations(request: TransferRequest, **options) -> dict[str, str]:
    """Return what is wrong with a request, by field."""
    changed = dataclasses.replace(request, options=dataclasses.replace(request.options, **options))
    with pytest.raises(InvalidRequestError) as caught:
        prepare(changed, LIMITS, LAYERS)
    return {violation.field: violation.description for violation in caught.value.violations}


def violated(request: TransferRequest, **options) -> set[str]:
    return set(violations(request, **options))


@pytest.mark.parametrize(
    ("options", "field", "description"),
    [
        ({"iterations": 0}, "options.iterations", "is 0; accepted values are 1 to 1000"),
        ({"iterations": 10**9}, "options.iterations", "is 1000000000; this server accepts at most 1000"),
        (
            {"content_weight": 1e-46},
            "options.content_weight",
            "is 1e-46, which is 0 in float32; accepted values are 0 to 1000000000000",
        ),
        (
            {"content_weight": 1e-30, "content_layers": {"relu4_2": 1e-30}},
            "options.content_layers",
            "gives relu4_2 a weight of 1e-30 times content_weight, 1e-30, which is 0 in float32",
        ),
        ({"iterations": 1001}, "options.iterations", "is 1001; this server accepts at most 1000"),
        ({"learning_rate": 0.0}, "options.learning_rate", "is 0.0; accepted values are above 0, at most 10"),
        ({"scales": 8, "iterations": 7}, "options.iterations", "is 7; each of the 8 scales needs at least 1"),
        (
            {"scale_iterations": (1, 2)},
            "options.scale_iterations",
            "has 2 entries; it needs one for each scale, and options.scales is 1",
        ),
        (
            {"style_layers": {"relu1_1": -1.0}},
            "options.style_layers",
            "gives relu1_1 a weight of -1.0; accepted weights are 0 to 1000000000000",
        ),
        ({"image_size": 8}, "options.image_size", "makes the result 8x6 px; layer relu5_1 needs at least 16x16 px"),
        ({"init": Init.PICTURE}, "init_picture", "is not set; it is required where options.init is picture"),
    ],
)
def test_a_violation_says_what_is_wrong_and_what_is_accepted(
    request_: TransferRequest, options: dict[str, Any], field: str, description: str
):
    assert violations(request_, **options) == {field: description}


def test_a_result_that_its_format_cannot_hold_is_refused_by_the_format(request_: TransferRequest):
    limits = dataclasses.replace(LIMITS, max_image_size=20_000)
    request = dataclasses.replace(
        request_,
        options=dataclasses.replace(request_.options, image_size=16_384),
        output=OutputOptions(format=OutputFormat.WEBP),
    )
    with pytest.raises(InvalidRequestError) as caught:
        prepare(request, limits, LAYERS)
    [violation] = caught.value.violations
    assert violation.field == "output.format"
    assert violation.description == "is WebP, which holds at most 16383 px at an edge; the result has 16384x12629 px"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"iterations": 0}, "options.iterations"),
        ({"iterations": 1001}, "options.iterations"),
        ({"style_weight": -1.0}, "options.style_weight"),
        ({"content_weight": math.nan}, "options.content_weight"),
        ({"style_layers": {"relu9_9": 1.0}}, "options.style_layers"),
        ({"image_size": 8}, "options.image_size"),
        ({"init": Init.PICTURE}, "init_picture"),
    ],
)
def test_a_bad_option_is_named(request_: TransferRequest, options: dict, field: str):
    assert violated(request_, **options) == {field}


def test_nothing_to_optimise_is_refused(request_: TransferRequest):
    assert "options.content_weight" in violated(request_, content_weight=0.0, style_weight=0.0)


def test_a_tiny_picture_is_refused_by_the_deepest_layer(request_: TransferRequest, one_pixel_png: bytes):
    assert violated(dataclasses.replace(request_, content=one_pixel_png)) == {"content"}


def test_no_style_is_refused(request_: TransferRequest):
    assert violated(dataclasses.replace(request_, styles=())) == {"styles"}


def test_a_reduced_specification_says_from_what_it_was_reduced(make_spec: MakeSpec):
    spec = make_spec(scales=2)
    once = spec.reduced(fit(spec.content.size, 32))
    twice = once.reduced(fit(once.content.size, 24))
    assert once.reduced_from == twice.reduced_from == spec.content.size
    assert (once.content.size, once.options.image_size) == (Size(32, 25), 32)
    assert twice.options.scale_iterations == spec.options.scale_iterations


@pytest.mark.parametrize(("least", "is_accepted"), [(0, True), (1, False), (40, True), (48, True), (49, False)])
def test_the_least_size_is_between_what_the_layers_need_and_the_size_of_the_result(
    make_spec: MakeSpec, least: int, is_accepted: bool
):
    for size in (48, 0):
        if is_accepted:
            assert make_spec(min_image_size=least, image_size=size).options.min_image_size == least
        else:
            with pytest.raises(InvalidRequestError) as caught:
                make_spec(min_image_size=least, image_size=size)
            (violation,) = caught.value.violations
            assert violation.field == "options.min_image_size"
            assert violation.description == f"is {least}; accepted values are 0, and 6 to the size of the result, 48"
