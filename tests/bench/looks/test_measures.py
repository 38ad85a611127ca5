import numpy as np
import pytest
from scipy import ndimage

from bench.looks import measures
from bench.looks.measures import (
    GRID_PERIODS,
    OCTAVES,
    edges_kept,
    flat_regions,
    grid_peaks,
    measure,
    noise,
    octave_contrast,
    palette_distance,
    similarity,
    style_size,
)


def _clouds(seed: int = 0, size: tuple[int, int] = (192, 256)) -> measures.Array:
    """Return a picture with power in every octave, in colour."""
    random = np.random.default_rng(seed).normal(size=(*size, 3))
    sums = sum(ndimage.gaussian_filter(random, (sigma, sigma, 0)) * sigma for sigma in (0.7, 2, 6, 18))
    return np.clip(0.5 + 0.06 * sums, 0, 1)


def _waves(period: float, amplitude: float) -> measures.Array:
    """Return a grey picture (128, 256, 3) of vertical waves."""
    row = 0.5 + amplitude * np.cos(2 * np.pi * (np.arange(256) + 0.5) / period)
    return np.broadcast_to(row[None, :, None], (128, 256, 3)).copy()


@pytest.mark.parametrize("octave", OCTAVES)
def test_the_contrast_of_a_wave_is_its_rms_in_the_octave_of_its_period(octave: int):
    # Half periods fill the 256 px, as in the basis of the DCT.
    contrast = octave_contrast(_waves(512 / round(512 / 0.7 / octave), 0.2))
    assert contrast[octave].luma == pytest.approx(0.2 / np.sqrt(2), rel=1e-6)
    assert contrast[octave].chroma == pytest.approx(0, abs=1e-9)
    assert all(contrast[other].luma < 1e-6 for other in OCTAVES if other != octave)


def test_the_squares_of_all_octaves_and_of_what_is_coarser_add_up_to_the_variance():
    picture = np.random.default_rng(1).uniform(size=(64, 64, 3))
    luma = measures.luma_chroma(picture)[..., 0]
    # Only the lowest waves of 64 px are coarser than the coarsest octave.
    total = sum(contrast.luma**2 for contrast in octave_contrast(picture).values())
    assert 0.99 * luma.var() < total <= luma.var()


def test_colours_of_one_luma_have_chroma_only():
    red, green = np.array([1, 0, 0]), np.array([0, 0.2126 / 0.7152, 0])
    stripes = np.where((np.arange(128) // 3 % 2 == 0)[None, :, None], red, green)
    contrast = octave_contrast(np.broadcast_to(stripes, (128, 128, 3)))
    assert contrast[8].luma == pytest.approx(0, abs=1e-9)
    assert contrast[8].chroma > 0.1


def test_a_ramp_has_no_fine_contrast_although_its_borders_differ():
    ramp = np.broadcast_to(np.linspace(0, 1, 256)[None, :, None], (256, 256, 3))
    assert octave_contrast(ramp)[4].luma < 0.001


@pytest.mark.parametrize("shape", [(192, 256), (171, 250), (256, 131)])
def test_a_picture_without_a_grid_has_no_peak(shape: tuple[int, int]):
    assert max(grid_peaks(_clouds(size=shape)).values()) < 2


@pytest.mark.parametrize("period", GRID_PERIODS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_faint_grid_has_a_peak_at_its_period_alone(period: int, axis: int):
    clouds = _clouds(size=(250, 203))
    wave = 0.02 * np.cos(2 * np.pi * np.arange(clouds.shape[axis]) / period)
    peaks = grid_peaks(clouds + (wave[:, None, None] if axis == 0 else wave[:, None]))
    assert peaks[period] > 3
    assert all(peaks[other] < 2 for other in GRID_PERIODS if other != period)


def test_a_grid_in_the_colours_alone_has_a_peak():
    wave = 0.02 * np.cos(np.pi * np.arange(256) / 2)
    assert grid_peaks(_clouds() + wave[:, None] * [1, -0.2126 / 0.7152, 0])[4] > 3


def test_a_grey_picture_has_no_peaks():
    assert grid_peaks(np.full((100, 100, 3), 0.5)) == {period: pytest.approx(1, abs=0.01) for period in GRID_PERIODS}


def test_the_palette_distance_ignores_where_the_colours_are():
    clouds = _clouds()
    assert palette_distance(clouds, clouds[::-1, ::-1]) == pytest.approx(0, abs=1e-9)
    assert palette_distance(clouds, _clouds(seed=5)) < 3


def test_a_shift_of_all_colours_has_the_distance_of_the_shift_over_the_root_of_three():
    # The mean of cos^2 over all directions in three dimensions is 1/3. 50 and 75 are greys of that lightness in Lab.
    dark, bright = np.full((8, 8, 3), 0.46633), np.full((8, 8, 3), 0.72511)
    assert palette_distance(dark, bright) == pytest.approx(25 / np.sqrt(3), rel=0.01)


def test_a_picture_keeps_its_own_edges_and_another_keeps_them_by_chance_only():
    assert edges_kept(_clouds(), _clouds()) == pytest.approx(1)
    assert edges_kept(_clouds(seed=9), _clouds()) == pytest.approx(0, abs=0.12)


def test_an_edge_across_the_contents_edge_does_not_keep_it():
    vertical = np.zeros((256, 256, 3))
    vertical[:, 128:] = 1
    stripes = np.broadcast_to((np.arange(256) // 8 % 2)[:, None, None], (256, 256, 3)).astype(float)
    assert edges_kept(0.9 * vertical, vertical) == pytest.approx(1)
    assert edges_kept(stripes, vertical) < 0.1


def test_a_content_without_edges_keeps_them_all():
    assert edges_kept(_clouds(), np.full((192, 256, 3), 0.3)) == 1.0


@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_noise_is_the_standard_deviation_of_white_noise_on_a_ramp(deviation: float):
    ramp = np.broadcast_to(np.linspace(0.2, 0.8, 256)[None, :, None], (256, 256, 3))
    values = np.random.default_rng(2).normal(0, deviation, (256, 256, 1))
    assert noise(ramp).luma == pytest.approx(0, abs=1e-4)
    assert noise(ramp + values).luma == pytest.approx(deviation, rel=0.05)
    assert noise(ramp + values).chroma == pytest.approx(0, abs=1e-6)


def test_noise_is_measured_within_a_region_only():
    content = np.full((128, 128, 3), 0.5)
    content[:, 64:] = np.random.default_rng(3).uniform(size=(128, 64, 3))
    flat = flat_regions(content)
    assert flat.mean() >= 0.2
    assert not flat[:, 80:].any()
    assert noise(content, flat).luma < 0.001 < noise(content).luma


def test_a_style_is_seen_at_its_scale_times_the_longest_edge_of_the_content():
    assert style_size((1000, 500), (256, 192)) == (256, 128)
    assert style_size((500, 1000), (256, 192), 1.5) == (192, 384)


def test_a_picture_measured_against_itself_follows_the_style_in_every_octave():
    clouds = _clouds()
    same = measure(clouds, clouds, clouds)
    assert {same.luma_ratio(octave) for octave in OCTAVES} == {1.0}
    assert {same.chroma_ratio(octave) for octave in OCTAVES} == {1.0}
    assert same.palette == 0
    assert same.edges_kept == 1


def test_a_blurred_result_lacks_the_finest_octave_most():
    clouds = _clouds()
    blurred = measure(ndimage.gaussian_filter(clouds, (1, 1, 0)), clouds, clouds)
    ratios = [blurred.luma_ratio(octave) for octave in OCTAVES]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.5
    assert ratios[-1] > 0.95


def test_a_content_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(64, 64, 3\)"):
        measure(_clouds(), _clouds(), _clouds(size=(64, 64)))


def test_similarity_is_one_for_the_same_picture_and_falls_with_blur():
    clouds = _clouds()
    blurred = [ndimage.gaussian_filter(clouds, (sigma, sigma, 0)) for sigma in (0.5, 1, 3)]
    values = [similarity(picture, clouds) for picture in (clouds, *blurred)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
