import pytest
from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory
from nst_service.engine.network.backend import Backend
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.outline import TransferOutline
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size
from nst_service.engine.spec import Style, TransferSpec
from nst_service.jobs.errors import DoesNotFitError
from nst_service.jobs.memory_fit import does_not_fit, fitted, reduced


def spec_of(size: Size = (640, 480), style: Size = (640, 480), **options) -> TransferOutline:
    spec = TransferSpec(
        content=Picture.blank(size),
        styles=(Style(picture=Picture.blank(style), share=1.0),),
        options=TransferOptions(**options).completed(),
        output=OutputOptions(),
    )
    return spec.outline


def test_what_fits_stays_as_it_is():
    spec = spec_of(min_image_size=100)
    assert fitted(spec, Memory(2**33)) is spec
    # Tiles come first: they give the same result.
    tiled = Memory(estimate(spec, Memory(0)).peak_bytes)
    assert fitted(spec, tiled) is spec


@pytest.mark.parametrize("style", [(640, 480), (1280, 1000), (97, 300)])
def test_the_largest_size_that_fits_is_taken_where_it_is_allowed(style: Size):
    memory = Memory(estimate(spec_of(style=style), Memory(0)).peak_bytes).share(0.75)
    smaller = fitted(spec_of(style=style, min_image_size=100), memory)
    assert estimate(smaller, memory).peak_bytes <= memory.available
    edge = smaller.size.width
    assert 100 < edge == smaller.options.image_size < 640
    assert smaller.reduced_from == (640, 480)
    assert fitted(spec_of(style=style, min_image_size=edge), memory).size.width == edge
    for least in (0, edge + 1):
        with pytest.raises(DoesNotFitError) as caught:
            fitted(spec_of(style=style, min_image_size=least), memory)
        assert caught.value.largest_size == edge


def test_nothing_is_reduced_without_leave():
    assert reduced(spec_of(), Memory(2**28)) is None


def test_the_error_names_a_shorter_history_where_that_helps():
    memory = Memory(2**32)
    large = spec_of((4096, 3072), (4096, 3072))
    cost = estimate(large, memory)
    assert "with an lbfgs_history of 3 the job needs about" in str(does_not_fit(large, cost.peak_bytes, memory))
    short = spec_of((4096, 3072), (4096, 3072), lbfgs_history=3)
    assert "lbfgs_history" not in str(does_not_fit(short, estimate(short, memory).peak_bytes, memory))


def test_what_fits_on_a_cpu_with_the_native_kernel_may_not_fit_on_a_gpu():
    spec = spec_of((2048, 1536), (2048, 1536), min_image_size=100)
    available = estimate(spec, Memory(0, Backend.NATIVE)).peak_bytes
    assert fitted(spec, Memory(available, Backend.NATIVE)) is spec
    assert fitted(spec, Memory(available, Backend.TORCH)).size.width < 2048
