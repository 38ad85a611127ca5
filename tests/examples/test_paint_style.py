import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

PAINTER = Path(__file__).parents[2] / "examples" / "paint_style.py"
SIZE = (384, 256)


@pytest.fixture(scope="module")
def painter():
    spec = importlib.util.spec_from_file_location("paint_style", PAINTER)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look up their module by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def picture(painter):
    return painter.paint(*SIZE, seed=1)


def test_a_seed_always_paints_the_same_picture(painter, picture):
    assert picture.size == SIZE
    assert picture.mode == "RGB"
    assert painter.paint(*SIZE, seed=1).tobytes() == picture.tobytes()


def test_another_seed_paints_another_picture(painter, picture):
    other = np.asarray(painter.paint(*SIZE, seed=2), float)
    assert np.abs(other - np.asarray(picture, float)).mean() > 20


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_tile_has_the_contrast_of_brush_strokes(painter, seed):
    tile = 64
    grey = np.asarray(painter.paint(*SIZE, seed=seed).convert("L"), float)
    tiles = grey.reshape(SIZE[1] // tile, tile, SIZE[0] // tile, tile)
    assert tiles.std(axis=(1, 3)).min() > 20
