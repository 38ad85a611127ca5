import pytest

from bench.metrics import interval


@pytest.mark.parametrize(("count", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (20, (6, 15)), (100, (40, 61))])
def test_the_interval_is_between_the_order_statistics_of_the_textbook(count: int, ranks: tuple[int, int]):
    # The ratios are their own ranks, in any order.
    assert interval([float(rank) for rank in range(count, 0, -1)]) == ranks
