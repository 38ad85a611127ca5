import pytest

from bench.against.__main__ import Figures, show


def figures(*turns: float, peak: int = 100) -> Figures:
    return Figures(turns=turns, idle_bytes=60 * 2**20, peak_bytes=peak * 2**20)


def test_the_ratio_of_a_pair_is_the_median_of_its_turns():
    # What else the machine does may slow one turn of one of the two.
    pairs = [(figures(1.0, 9.0, 1.1), figures(1.0, 1.0, 1.0))]
    assert show("reference, 256 px", pairs) == (pytest.approx(1.1), 1.0)


def test_the_ratio_of_a_figure_is_the_median_of_its_pairs(capsys: pytest.CaptureFixture[str]):
    pairs = [
        (figures(2.0, peak=110), figures(1.0, peak=100)),
        (figures(1.0, peak=100), figures(1.0, peak=100)),
        (figures(1.1, peak=140), figures(1.0, peak=100)),
    ]
    assert show("reference, 256 px", pairs) == (pytest.approx(1.1), pytest.approx(1.1))
    seconds, _, beyond_idle = capsys.readouterr().out.splitlines()
    assert seconds.split()[3:] == ["s/evaluation", "1.1", "1", "1.100", "2.000", "1.000", "1.100"]
    assert beyond_idle.split()[-3:] == ["1.250", "1.000", "2.000"]
