import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.same_bytes.__main__ import Comparison


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    """Two equal results."""
    results = Comparison("balanced", tmp_path / "this" / "balanced", tmp_path / "other" / "balanced")
    for path in (results.ours, results.theirs):
        write(path)
    return results


def write(path: Path, *, brightest: int = 200, text: str = "", loss: float = 1.0) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.full((4, 6, 3), 100, np.uint8)
    pixels[0, 0, 0] = brightest
    info = PngInfo()
    info.add_text("nst", text)
    Image.fromarray(pixels).save(path.with_suffix(".png"), pnginfo=info)
    path.with_suffix(".json").write_text(json.dumps({"total_loss": loss, "iterations": 3}))


def test_equal_results_have_no_difference(comparison: Comparison):
    assert comparison.difference() == ""


def test_a_pixel_that_differs_is_reported(comparison: Comparison):
    write(comparison.ours, brightest=198)
    assert comparison.difference() == "differs: 1 of 72 values, by up to 2"


def test_metadata_that_differ_are_reported(comparison: Comparison):
    write(comparison.ours, text="another")
    assert comparison.difference() == "differs: the pixels are equal, the rest of the file is not"


def test_what_the_server_says_and_differs_is_reported(comparison: Comparison):
    write(comparison.ours, loss=2.0)
    assert comparison.difference() == "same file, but not the same total_loss"
