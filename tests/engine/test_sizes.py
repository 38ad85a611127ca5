import pytest
from nst_service.engine.sizes import Size, fit


@pytest.mark.parametrize(
    ("size", "longest_edge", "expected"),
    [
        ((400, 300), 0, (400, 300)),
        ((400, 300), 200, (200, 150)),
        ((300, 400), 200, (150, 200)),
        ((400, 300), 800, (800, 600)),
        ((1000, 667), 500, (500, 334)),
        ((10_000, 1), 100, (100, 1)),
        ((1, 10_000), 1, (1, 1)),
        ((1, 1), 512, (512, 512)),
    ],
)
def test_fit_keeps_the_shape(size, longest_edge, expected):
    assert fit(Size(*size), longest_edge) == expected


def test_fit_meets_the_longest_edge_exactly():
    sizes = [Size(width, 97) for width in range(97, 400, 7)]
    assert all(max(fit(size, edge)) == edge for size in sizes for edge in range(1, 900, 13))
