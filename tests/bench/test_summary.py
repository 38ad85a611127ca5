import math

import pytest

from bench.race import sampled
from bench.summary import by_size, p95, seconds_to_reach, tables

POINTS = [
    {"evaluations": 1, "seconds": 1.0, "loss": 100.0},
    {"evaluations": 2, "seconds": 2.0, "loss": 400.0},
    {"evaluations": 4, "seconds": 4.0, "loss": 1.0},
]


def test_a_loss_is_reached_between_two_pictures_by_its_logarithm():
    assert seconds_to_reach(POINTS, 20.0) == pytest.approx(3.0)


def test_a_loss_that_the_first_picture_has_is_reached_with_it():
    assert seconds_to_reach(POINTS, 100.0) == 1.0


def test_a_loss_that_no_picture_has_is_never_reached():
    assert seconds_to_reach(POINTS, 0.5) is None


def test_the_first_and_the_last_evaluation_are_sampled():
    assert sampled(1) == [1]
    assert sampled(200)[0] == 1
    assert sampled(200)[-1] == 200


def test_a_percentile_of_one_value_is_that_value():
    assert p95([3.0]) == 3.0


def test_figures_of_a_size_are_their_median():
    runs = [{"size": 64, "seconds": value} for value in (1.0, 5.0, 2.0)] + [{"size": 128, "seconds": 7.0}]
    assert by_size(runs, "seconds") == {64: 2.0, 128: 7.0}


def test_the_memory_of_a_program_is_the_most_of_all_its_runs():
    race = _race({"nst": (10.0, 4.0), "slow": (20.0, 4.0)})
    race["turns"]["slow"] = [{"pair": "a", "evaluation_seconds": 1.0, "peak_bytes": 2**19}] * 2
    race["turns"]["nst"] = [{"pair": "a", "evaluation_seconds": 1.0, "peak_bytes": 3 * 2**19}] * 2
    rows = {row[0]: row for row in next(tables({"race": race})).rows}
    assert rows["nst"][6:] == ["2", "1.00", "1", "1.00"]
    assert rows["slow"][6:] == ["1", "1.50", "0", "2.00"]


def test_the_best_competitor_reaches_its_own_loss_in_its_own_time():
    results = {"race": _race({"nst": (10.0, 4.0), "slow": (20.0, 4.0), "broken": (5.0, math.nan)})}
    race = next(tables(results))
    rows = {row[0]: row for row in race.rows}
    assert rows["nst"][5] == "0.50"
    assert rows["slow"][5] == "1.00"
    assert rows["broken"][5] == "never"
    assert rows["slow"][6:] == ["1", "1.00", "0", "1.00"]
    assert rows["absent"][1].startswith("not run: ")


def _race(ends: dict[str, tuple[float, float]]) -> dict:
    names = [*ends, "absent"]
    runs = {
        name: [
            {
                "pair": "a",
                "round": 0,
                "points": [
                    {"evaluations": 1, "seconds": 0.0, "loss": 8.0},
                    {"evaluations": 2, "seconds": seconds, "loss": loss},
                ],
                "evaluation_seconds": seconds,
                "peak_bytes": 2**20,
                "disagreement": None,
            }
        ]
        for name, (seconds, loss) in ends.items()
    }
    return {
        "settings": {"size": 64, "iterations": 2, "tv_weight": 0.0},
        "pairs": ["a"],
        "programs": [{"name": name, "note": "", "is_competitor": name != "nst"} for name in names],
        "runs": {**runs, "absent": []},
        "turns": {name: [] for name in names},
        "failures": {"absent": "no such version"},
        "import_bytes": 2**19,
    }
