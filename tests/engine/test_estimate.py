import pytest
from nst_service.engine.estimate import fitting_tile, forward_flops, largest_size_within, peak_bytes
from nst_service.engine.options import TransferOptions
from nst_service.engine.pictures import fit

OPTIONS = TransferOptions()


@pytest.mark.parametrize("size", [(640, 480), (451, 300), (97, 1023)])
def test_the_largest_size_fits_and_a_pixel_more_does_not(size: tuple[int, int]):
    available = peak_bytes(OPTIONS, size, [size]) // 3
    edge = largest_size_within(available, OPTIONS, size)
    within, beyond = (fitting_tile(OPTIONS, it, [it], available) for it in (fit(size, edge), fit(size, edge + 1)))
    assert within[1] <= available < beyond[1]


def test_tiles_are_the_largest_that_fit():
    size = (2048, 1536)
    whole = peak_bytes(OPTIONS, size, [size])
    assert fitting_tile(OPTIONS, size, [size], whole) == (None, whole)
    tile, peak = fitting_tile(OPTIONS, size, [size], whole // 2)
    assert peak <= whole // 2 < peak_bytes(OPTIONS, size, [size], 2 * tile)


def test_memory_too_small_for_any_picture_gives_no_size():
    assert largest_size_within(1000, OPTIONS, (640, 480)) == 0


def test_the_operations_are_those_of_the_convolutions_that_run():
    # conv1_1 and conv1_2 on every pixel, 2 operations for each product.
    assert forward_flops((10, 10), {"relu1_2": 1.0}) == 2 * 9 * 100 * (3 * 64 + 64 * 64)


def test_a_pixel_more_than_a_multiple_of_the_pooling_costs_a_feature_more():
    whole, more = (forward_flops((width, 16), {"conv2_1": 1.0}) for width in (16, 17))
    first_block = 2 * 9 * 16 * (3 * 64 + 64 * 64)
    assert more - whole == first_block + 2 * 9 * 8 * 64 * 128
