import dataclasses

import pytest
from nst_service.engine.choices import OptimizerKind
from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory, fitting_tile, largest_size_within, shorter_history
from nst_service.engine.memory.footprint import peak_bytes
from nst_service.engine.network.backend import Backend
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size, fit
from nst_service.engine.spec import Style, TransferSpec

OPTIONS = TransferOptions()


@pytest.mark.parametrize("size", [Size(1280, 960), Size(1451, 1300), Size(397, 3023)])
def test_the_largest_size_fits_and_a_pixel_more_does_not(size: Size):
    memory = Memory(peak_bytes(OPTIONS, size, [size])).share(0.5)
    edge = largest_size_within(memory, OPTIONS, size, [size])
    within, beyond = (fitting_tile(OPTIONS, it, [it], memory) for it in (fit(size, edge), fit(size, edge + 1)))
    assert within.peak_bytes <= memory.available < beyond.peak_bytes


def test_tiles_are_the_largest_that_fit():
    size = Size(4096, 3072)
    whole = peak_bytes(OPTIONS, size, [size])
    assert fitting_tile(OPTIONS, size, [size], Memory(whole)) == (None, whole)
    less = whole * 3 // 4
    tile_size, peak = fitting_tile(OPTIONS, size, [size], Memory(less))
    assert peak <= less < peak_bytes(OPTIONS, size, [size], 2 * tile_size)


def test_memory_too_small_for_any_picture_gives_no_size():
    assert largest_size_within(Memory(1000), OPTIONS, Size(640, 480), [Size(640, 480)]) == 0


def test_a_larger_style_leaves_less_for_the_result():
    size, style = Size(128, 96), Size(512, 384)
    memory = Memory(peak_bytes(OPTIONS, size, [size]))
    assert largest_size_within(memory, OPTIONS, size, [size]) == 128
    edge = largest_size_within(memory, OPTIONS, size, [style])
    assert 32 < edge < 128
    within, beyond = (fitting_tile(OPTIONS, fit(size, it), [fit(style, 4 * it)], memory) for it in (edge, edge + 1))
    assert within.peak_bytes <= memory.available < beyond.peak_bytes


@pytest.mark.parametrize(
    ("options", "size", "is_considerable"),
    [
        ({}, Size(4096, 3072), True),
        ({"iterations": 3}, Size(4096, 3072), False),
        ({"lbfgs_history": 4}, Size(4096, 3072), False),
        ({"optimizer": OptimizerKind.ADAM}, Size(4096, 3072), False),
        ({}, Size(128, 96), False),
    ],
)
def test_a_shorter_history_is_known_where_it_needs_considerably_less(options: dict, size: Size, is_considerable: bool):
    spec = TransferSpec(
        content=Picture.blank(size),
        styles=(Style(picture=Picture.blank(size), share=1.0),),
        options=TransferOptions(**options).completed(),
        output=OutputOptions(),
    )
    memory = Memory(4 * 2**30)
    shorter = shorter_history(spec.outline, memory)
    assert (shorter is not None) is is_considerable
    if shorter:
        steps, needed = shorter
        with_it = dataclasses.replace(spec, options=dataclasses.replace(spec.options, lbfgs_history=steps))
        assert needed == estimate(with_it.outline, memory).peak_bytes
        assert needed < 0.8 * estimate(spec.outline, memory).peak_bytes


def test_devices_have_in_common_the_least_memory_and_the_backend_that_keeps_more():
    native, torch = Memory(1000, Backend.NATIVE), Memory(2000, Backend.TORCH)
    assert Memory.common([native]) == native
    assert Memory.common([native, torch]) == Memory(1000, Backend.TORCH)
