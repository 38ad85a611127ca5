import pytest
from nst_client import InvalidRequestError
from nst_client.options import Style

cv2 = pytest.importorskip("cv2")
np = pytest.importorskip("numpy")
pytest.importorskip("av")

from nst_client.video.pixels import decode_mask  # noqa: E402 - after what it needs
from nst_client.video.regions import region_in_view, split_styles  # noqa: E402

WIDTH, HEIGHT = 100, 60


def known_but(*places):
    known = np.ones((HEIGHT, WIDTH), bool)
    for rows, columns in places:
        known[rows, columns] = False
    return known


EDGE = (slice(None), slice(90, None))
"""A strip at the right edge."""


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def mask_of(style):
    return decode_mask(style.mask)


def test_what_has_come_into_view_has_a_margin():
    region = region_in_view(known_but(EDGE))
    assert region[:, 86:].all()
    assert not region[:, :86].any()


def test_specks_and_tiny_spots_are_no_region():
    specks = [(row, slice(column, column + 2)) for row in range(0, HEIGHT, 4) for column in range(0, WIDTH, 4)]
    assert region_in_view(known_but(*specks)) is None
    assert region_in_view(known_but((slice(10, 16), slice(10, 16)))) is None
    assert region_in_view(known_but()) is None


def test_a_style_applies_to_each_part_by_its_area():
    region = region_in_view(known_but(EDGE))
    entered, rest = split_styles([Style(b"style", weight=2.0, scale=1.5)], region)
    assert (mask_of(entered) == 255 * region).all()
    assert (mask_of(rest) == 255 * ~region).all()
    assert entered.weight == pytest.approx(2 * region.mean())
    assert entered.weight + rest.weight == pytest.approx(2)
    assert {part.scale for part in (entered, rest)} == {1.5}


def test_a_style_with_a_mask_stays_within_it():
    left, right = np.zeros((HEIGHT, WIDTH), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    left[:, :50], right[:, 50:] = 255, 200
    region = region_in_view(known_but(EDGE))
    one, entered, rest = split_styles([Style(b"one", mask=png(left)), Style(b"two", mask=png(right))], region)
    assert (one.picture, one.weight) == (b"one", 1)
    assert (mask_of(one) == left).all()
    assert (mask_of(entered) == np.where(region, right, 0)).all()
    assert (mask_of(rest) == np.where(region, 0, right)).all()
    assert entered.weight + rest.weight == pytest.approx(1)


def test_a_mask_has_the_size_of_the_frame_and_its_transparent_pixels_are_black():
    small = np.full((HEIGHT // 2, WIDTH // 2, 4), 255, np.uint8)
    small[:, :25, 3] = 0
    (entered, rest) = split_styles([Style(b"style", mask=png(small))], region_in_view(known_but(EDGE)))
    assert mask_of(entered).shape == (HEIGHT, WIDTH)
    assert mask_of(rest)[:, :40].max() == 0
    assert mask_of(rest)[:, 60:80].min() == 255


def test_a_blend_stays_as_it_is():
    blend = [Style(b"one"), Style(b"two", weight=3.0)]
    assert split_styles(blend, region_in_view(known_but(EDGE))) == blend


def test_a_black_mask_is_left_to_the_server():
    black = Style(b"style", mask=png(np.zeros((HEIGHT, WIDTH), np.uint8)))
    assert split_styles([black], region_in_view(known_but(EDGE))) == [black]


def test_a_mask_that_is_no_picture_is_named():
    with pytest.raises(InvalidRequestError, match=r"styles\[0\].mask: is not a picture"):
        split_styles([Style(b"style", mask=b"no picture")], region_in_view(known_but(EDGE)))
