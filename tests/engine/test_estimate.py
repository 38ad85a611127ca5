from nst_service.engine.estimate import forward_flops
from nst_service.engine.sizes import Size


def test_the_operations_are_those_of_the_convolutions_that_run():
    # conv1_1 and conv1_2 on every pixel, 2 operations for each product.
    assert forward_flops(Size(10, 10), {"relu1_2": 1.0}) == 2 * 9 * 100 * (3 * 64 + 64 * 64)


def test_a_pixel_more_than_a_multiple_of_the_pooling_costs_a_feature_more():
    whole, more = (forward_flops(Size(width, 16), {"conv2_1": 1.0}) for width in (16, 17))
    first_block = 2 * 9 * 16 * (3 * 64 + 64 * 64)
    assert more - whole == first_block + 2 * 9 * 8 * 64 * 128
