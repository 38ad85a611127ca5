import dataclasses

import pytest
import torch
from nst_service.engine import estimate as estimate_module
from nst_service.engine.choices import OptimizerKind, Pooling, Preset, StyleStatisticKind
from nst_service.engine.estimate import (
    Memory,
    estimate,
    fitting_tile,
    forward_flops,
    largest_size_within,
    peak_bytes,
    shorter_history,
    snapshot_bytes,
)
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
    assert within[1] <= memory.available < beyond[1]


def test_tiles_are_the_largest_that_fit():
    size = Size(4096, 3072)
    whole = peak_bytes(OPTIONS, size, [size])
    assert fitting_tile(OPTIONS, size, [size], Memory(whole)) == (None, whole)
    less = whole * 3 // 4
    tile, peak = fitting_tile(OPTIONS, size, [size], Memory(less))
    assert peak <= less < peak_bytes(OPTIONS, size, [size], 2 * tile)


@pytest.mark.parametrize(
    ("size", "tile", "iterations", "options", "measured"),
    [
        (Size(512, 384), None, 12, {}, 180),
        (Size(512, 384), None, 22, {"lbfgs_history": 20}, 251),
        (Size(512, 384), 256, 3, {}, 181),
        (Size(512, 384), None, 3, {"style_loss": StyleStatisticKind.SLICED_WASSERSTEIN}, 434),
        (Size(512, 384), None, 3, {"pooling": Pooling.L2}, 565),
        (Size(512, 384), None, 3, {"style_layers": {"relu1_2": 1.0, "relu2_2": 1.0}}, 346),
        (Size(512, 384), None, 4, {"optimizer": OptimizerKind.ADAM}, 160),
        (Size(1024, 768), None, 4, {}, 590),
        (Size(1024, 768), None, 8, {}, 651),
        (Size(1024, 768), 512, 3, {}, 533),
        (Size(2048, 1536), None, 2, {}, 2051),
        (Size(2048, 1536), 512, 2, {}, 1344),
    ],
)
def test_the_estimate_is_what_was_measured_or_somewhat_more(
    *, size: Size, tile: int | None, iterations: int, options: dict, measured: int, monkeypatch: pytest.MonkeyPatch
):
    """Measured: MiB that the process held at most over what it held before, by two threads of the native kernel.

    Without snapshots, each of which is held while it is stored.
    """
    monkeypatch.setattr(estimate_module, "NATIVE", True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    wanted = TransferOptions.from_preset(
        Preset.BALANCED, **{"scales": 1, "iterations": iterations, "lbfgs_history": 5} | options
    )
    alone = peak_bytes(wanted, size, [size], tile) - snapshot_bytes(wanted, size)
    assert measured <= alone / 2**20 <= 1.25 * measured


def test_every_thread_takes_memory_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """Measured: 53 MiB by which sixteen threads took more than two."""
    monkeypatch.setattr(estimate_module, "NATIVE", True)
    taken = []
    for threads in (2, 16):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        taken.append(peak_bytes(OPTIONS, Size(512, 384), [Size(512, 384)]))
    assert 53 <= (taken[1] - taken[0]) / 2**20 <= 80


def test_poolings_that_keep_something_for_the_way_back_take_more():
    taken = {
        pooling: peak_bytes(
            dataclasses.replace(OPTIONS, pooling=pooling), Size(512, 512), [Size(512, 512)], on_gpu=True
        )
        for pooling in Pooling
    }
    assert taken[Pooling.AVERAGE] < taken[Pooling.MAX] < taken[Pooling.L2]


def test_the_native_kernel_takes_less_than_two_fifths_of_what_a_gpu_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(estimate_module, "NATIVE", True)
    native, gpu = (peak_bytes(OPTIONS, Size(2048, 1536), [Size(2048, 1536)], on_gpu=on_gpu) for on_gpu in (False, True))
    assert native < 0.4 * gpu


def test_a_style_larger_than_the_content_counts():
    assert peak_bytes(OPTIONS, Size(256, 256), [Size(1024, 1024)]) > peak_bytes(
        OPTIONS, Size(256, 256), [Size(256, 256)]
    )


def test_memory_too_small_for_any_picture_gives_no_size():
    assert largest_size_within(Memory(1000), OPTIONS, Size(640, 480), [Size(640, 480)]) == 0


def test_a_larger_style_leaves_less_for_the_result():
    size, style = Size(128, 96), Size(512, 384)
    memory = Memory(peak_bytes(OPTIONS, size, [size]))
    assert largest_size_within(memory, OPTIONS, size, [size]) == 128
    edge = largest_size_within(memory, OPTIONS, size, [style])
    assert 32 < edge < 128
    within, beyond = (fitting_tile(OPTIONS, fit(size, it), [fit(style, 4 * it)], memory) for it in (edge, edge + 1))
    assert within[1] <= memory.available < beyond[1]


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
    shorter = shorter_history(spec, memory)
    assert (shorter is not None) is is_considerable
    if shorter:
        steps, needed = shorter
        with_it = dataclasses.replace(spec, options=dataclasses.replace(spec.options, lbfgs_history=steps))
        assert needed == estimate(with_it, memory).peak_bytes
        assert needed < 0.8 * estimate(spec, memory).peak_bytes


def test_the_operations_are_those_of_the_convolutions_that_run():
    # conv1_1 and conv1_2 on every pixel, 2 operations for each product.
    assert forward_flops(Size(10, 10), {"relu1_2": 1.0}) == 2 * 9 * 100 * (3 * 64 + 64 * 64)


def test_a_pixel_more_than_a_multiple_of_the_pooling_costs_a_feature_more():
    whole, more = (forward_flops(Size(width, 16), {"conv2_1": 1.0}) for width in (16, 17))
    first_block = 2 * 9 * 16 * (3 * 64 + 64 * 64)
    assert more - whole == first_block + 2 * 9 * 8 * 64 * 128
