import numpy as np
import pytest

from bench.looks.catalogue import PAINTERS


@pytest.mark.parametrize("name", PAINTERS)
def test_a_painter_paints_the_size_it_is_asked_for_and_the_seed_decides_the_picture(name):
    pictures = [PAINTERS[name](128, 96, seed) for seed in (1, 1, 2)]
    assert {picture.size for picture in pictures} == {(128, 96)}
    first, again, other = (np.asarray(picture, float) for picture in pictures)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.std() > 20
