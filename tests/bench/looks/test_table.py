import dataclasses

import pytest

from bench.looks.measures import GRID_PERIODS, OCTAVES, Contrast, Measures, Noise
from bench.looks.table import Measured, rows, table

STYLE = Contrast(luma=0.1, chroma=0.05)
FAITHFUL = Measures(
    contrast=dict.fromkeys(OCTAVES, STYLE),
    style_contrast=dict.fromkeys(OCTAVES, STYLE),
    grid=dict.fromkeys(GRID_PERIODS, 1.2),
    palette=3.0,
    edges_kept=0.8,
    noise=Noise(0.01, 0.01),
    style_noise=Noise(0.01, 0.01),
)


def _measured(*measures: Measures) -> list[Measured]:
    return [
        Measured(contender="new", pair=f"pair-{index}", size=256, measures=one) for index, one in enumerate(measures)
    ]


def _finest(luma: float = 1.0, chroma: float = 1.0) -> Measures:
    finest = Contrast(luma=luma * STYLE.luma, chroma=chroma * STYLE.chroma)
    return dataclasses.replace(FAITHFUL, contrast={**FAITHFUL.contrast, OCTAVES[0]: finest})


def _failed(measured: list[Measured]) -> list[str]:
    return [row.name for row in rows(measured) if not row.is_met]


def test_results_that_follow_their_styles_meet_every_goal():
    assert _failed(_measured(FAITHFUL, FAITHFUL)) == []


@pytest.mark.parametrize("ratio", [0.84, 1.16])
def test_a_median_that_is_off_by_more_than_15_per_cent_fails(ratio):
    assert _failed(_measured(_finest(luma=ratio), _finest(luma=ratio), FAITHFUL)) == ["luma, 2 to 4 px"]
    assert _failed(_measured(_finest(chroma=ratio), _finest(chroma=ratio), FAITHFUL)) == ["chroma, 2 to 4 px"]


@pytest.mark.parametrize("ratio", [0.69, 1.31])
def test_one_pair_that_is_off_by_more_than_30_per_cent_fails(ratio):
    assert _failed(_measured(_finest(luma=ratio), FAITHFUL, FAITHFUL)) == ["luma, 2 to 4 px"]
    assert _failed(_measured(_finest(luma=0.75), FAITHFUL, FAITHFUL)) == []


def test_the_chroma_of_an_octave_that_is_grey_in_the_style_is_not_judged():
    grey = Contrast(luma=0.1, chroma=0.019)
    measures = dataclasses.replace(_finest(chroma=0.1), style_contrast={**FAITHFUL.style_contrast, OCTAVES[0]: grey})
    names = [row.name for row in rows(_measured(measures))]
    assert "chroma, 2 to 4 px" not in names
    assert "chroma, 4 to 8 px" in names
    assert _failed(_measured(measures)) == []


def test_a_grid_in_one_pair_fails():
    grid = dataclasses.replace(FAITHFUL, grid={**FAITHFUL.grid, 8: 3.1})
    assert _failed(_measured(FAITHFUL, grid, FAITHFUL)) == ["grid of 8 px"]


def test_the_table_names_the_extreme_pairs_and_counts_the_goals():
    lines = list(table(_measured(_finest(luma=0.6), FAITHFUL, _finest(luma=1.1))))
    assert lines[0] == "new, 256 px, 3 pairs"
    finest = next(line for line in lines if line.startswith("luma, 2 to 4 px"))
    assert "0.60 pair-0" in finest
    assert "1.10 pair-2" in finest
    assert "FAIL" in finest
    assert "12 of 13 goals met" in lines
