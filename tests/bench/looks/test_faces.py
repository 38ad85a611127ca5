import pytest

from bench.looks.faces import Face, kept

FACE = Face(0.2, 0.3, 0.2, 0.2)


@pytest.mark.parametrize(
    ("other", "overlap"),
    [(FACE, 1), (FACE._replace(x=0.3), 1 / 3), (FACE._replace(y=0.5), 0), (Face(0.2, 0.3, 0.1, 0.1), 0.25)],
)
def test_overlap_is_intersection_over_union(other, overlap):
    assert FACE.overlap(other) == pytest.approx(overlap, abs=1e-9)
    assert other.overlap(FACE) == pytest.approx(overlap, abs=1e-9)


def test_a_face_is_kept_only_at_its_place():
    second = Face(0.7, 0.1, 0.2, 0.2)
    assert kept([FACE, second], [FACE._replace(x=0.25)]) == 1
    assert kept([FACE], [second]) == 0
    assert kept([FACE, second], [second, FACE]) == 2
    assert kept([], [FACE]) == 0
