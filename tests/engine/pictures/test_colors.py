import pytest
import torch
from nst_service.engine.choices import ColorMode
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.pictures.colors import (
    lab_to_rgb,
    luminance,
    match_colors,
    match_luminance,
    rgb_to_lab,
    with_chroma_lab,
    with_chroma_yiq,
)


def picture(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(seed))


def test_lab_has_the_values_of_the_standard():
    # White, and the primary red (IEC 61966-2-1).
    colors = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]).T.view(1, 3, 1, 2)
    expected = torch.tensor([[100.0, 0.0, 0.0], [53.24, 80.09, 67.20]]).T.view(1, 3, 1, 2)
    torch.testing.assert_close(rgb_to_lab(colors), expected, atol=0.03, rtol=0)


def test_lab_goes_there_and_back():
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(picture(0))), picture(0), atol=1e-4, rtol=0)


def test_chroma_comes_from_one_picture_and_luminance_from_the_other():
    # Muted colours, so that nothing leaves the gamut.
    one, other = 0.4 + 0.2 * picture(0), 0.4 + 0.2 * picture(1)
    yiq = with_chroma_yiq(one, other)
    torch.testing.assert_close(luminance(yiq), luminance(one))
    torch.testing.assert_close(yiq - luminance(yiq), other - luminance(other))
    lab = rgb_to_lab(with_chroma_lab(one, other))
    torch.testing.assert_close(lab[:, :1], rgb_to_lab(one)[:, :1], atol=1e-2, rtol=0)
    torch.testing.assert_close(lab[:, 1:], rgb_to_lab(other)[:, 1:], atol=1e-2, rtol=0)


def test_matched_colors_have_the_mean_and_covariance_of_the_reference():
    reference = 0.3 + 0.3 * picture(1) * torch.tensor([1.0, 0.5, 0.8]).view(1, 3, 1, 1)
    matched = match_colors(0.5 + 0.1 * picture(0), reference)
    torch.testing.assert_close(matched.mean((2, 3)), reference.mean((2, 3)), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(matched[0].flatten(1)), torch.cov(reference[0].flatten(1)), atol=1e-3, rtol=0)


@pytest.mark.parametrize("grey_style", [True, False])
def test_grey_pictures_can_be_matched(grey_style: bool):
    grey = picture(0)[:, :1].expand(1, 3, -1, -1)
    matched = match_colors(grey, picture(1)) if grey_style else match_colors(picture(1), grey)
    assert matched.isfinite().all()
    assert match_colors(torch.full_like(grey, 0.5), grey).isfinite().all()


def test_a_picture_of_one_pixel_can_be_matched():
    pixel = picture(0)[..., :1, :1]
    torch.testing.assert_close(match_colors(pixel, pixel), pixel)
    torch.testing.assert_close(match_luminance(luminance(pixel), luminance(pixel)), luminance(pixel))
    for one, other in ((pixel, picture(1)), (picture(1), pixel)):
        assert match_colors(one, other).isfinite().all()
        assert match_luminance(luminance(one), luminance(other)).isfinite().all()


def test_matched_luminance_has_the_mean_and_deviation_of_the_reference():
    reference = 0.4 + 0.2 * luminance(picture(1))
    matched = match_luminance(luminance(picture(0)), reference)
    torch.testing.assert_close(matched.mean(), reference.mean(), atol=1e-3, rtol=0)
    torch.testing.assert_close(matched.std(), reference.std(), atol=1e-3, rtol=0)


def test_a_canvas_leaves_the_content_where_its_mask_is_black():
    mask = torch.zeros(1, 1, 12, 16)
    mask[..., 8:] = 1
    canvas = Canvas(picture(0), mask)
    finished = canvas.finish(picture(1))
    assert torch.equal(finished[..., :8], picture(0)[..., :8])
    assert torch.equal(finished[..., 8:], picture(1)[..., 8:])


def test_a_soft_mask_blends():
    canvas = Canvas(torch.zeros(1, 3, 4, 4), torch.full((1, 1, 4, 4), 0.25))
    torch.testing.assert_close(canvas.finish(torch.ones(1, 3, 4, 4)), torch.full((1, 3, 4, 4), 0.25))


def test_in_luminance_mode_the_network_sees_grey_and_the_result_has_the_colors_of_the_content():
    content = 0.4 + 0.2 * picture(0)
    canvas = Canvas(content, color=ColorMode.LUMINANCE)
    seen = canvas.compose(picture(1))
    assert torch.equal(seen[:, 0], seen[:, 2])
    finished = canvas.finish(0.4 + 0.2 * picture(1))
    torch.testing.assert_close(finished - luminance(finished), content - luminance(content))


@pytest.mark.parametrize("color", list(ColorMode))
def test_pixels_out_of_range_leave_within_it(color: ColorMode):
    finished = Canvas(picture(0), color=color).finish(10 * picture(1) - 5)
    assert finished.min() >= 0
    assert finished.max() <= 1
