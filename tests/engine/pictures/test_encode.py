import io

import pytest
import torch
from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.formats import WRITTEN_FORMATS
from nst_service.engine.pictures.preview import preview
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.sizes import Size
from PIL import Image

from tests.engine.pictures.builders import (
    BLACK,
    INVISIBLE,
    RED,
    WHITE,
    close,
    colours,
    noise,
    reopened,
    row,
    save,
    waves,
)


def test_decoding_what_was_encoded_loses_nothing_in_png():
    levels = (noise(17, 13) * 255).round() / 255
    assert torch.equal(picture_to_tensor(reopened(encode(levels, format=OutputFormat.PNG, quality=1))), levels)


def test_values_are_rounded_not_truncated():
    pixels = torch.tensor([0.9999, 100.4 / 255, 100.6 / 255]).view(1, 3, 1, 1)
    assert colours(reopened(encode(pixels, format=OutputFormat.PNG, quality=1))) == [(255, 100, 101)]


def test_values_out_of_range_are_clamped():
    pixels = torch.tensor([-3.0, 1.7, 0.5]).view(1, 3, 1, 1)
    assert colours(reopened(encode(pixels, format=OutputFormat.PNG, quality=1))) == [(0, 255, 128)]


def test_half_precision_and_gradients_are_accepted():
    pixels = waves(9, 9).bfloat16().requires_grad_()
    assert reopened(encode(pixels, format=OutputFormat.PNG, quality=1)).size == Size(9, 9)
    assert preview(pixels, longest_edge=4).width == 4


@pytest.mark.parametrize("kind", OutputFormat)
def test_the_media_type_is_that_of_the_bytes(kind):
    data = encode(waves(8, 8), format=kind, quality=90)
    assert WRITTEN_FORMATS[kind].media_type == Image.open(io.BytesIO(data)).get_format_mimetype()


@pytest.mark.parametrize("kind", OutputFormat)
@pytest.mark.parametrize("size", [(1, 1), (17, 13), (120, 160)])
def test_the_same_pixels_give_the_same_bytes(kind, size):
    assert encode(noise(*size), format=kind, quality=90) == encode(noise(*size), format=kind, quality=90)


@pytest.mark.parametrize(("kind", "bound"), [("png", 0.51), ("jpeg", 2.0), ("webp", 4.0)])
def test_a_round_trip_stays_close(kind, bound):
    pixels = waves(96, 120)
    again = picture_to_tensor(reopened(encode(pixels, format=OutputFormat(kind), quality=95)))
    assert float((again - pixels).square().mean().sqrt()) * 255 < bound


@pytest.mark.parametrize("quality", [1, 89, 90, 95, 100])
@pytest.mark.parametrize("kind", OutputFormat)
def test_pure_noise_can_be_encoded_at_every_quality(kind, quality):
    assert reopened(encode(noise(300, 300).round(), format=kind, quality=quality)).size == Size(300, 300)


@pytest.mark.parametrize("kind", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_a_lower_quality_is_smaller(kind):
    sizes = [len(encode(noise(64, 64), format=kind, quality=quality)) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(("quality", "expected"), [(89, [(2, 2), (1, 1), (1, 1)]), (90, [(1, 1)] * 3)])
def test_high_quality_keeps_the_full_resolution_of_colours(quality, expected):
    with Image.open(io.BytesIO(encode(waves(32, 32), format=OutputFormat.JPEG, quality=quality))) as image:
        assert [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer] == expected


@pytest.mark.parametrize("kind", [OutputFormat.PNG, OutputFormat.WEBP])
def test_transparency_is_put_back(kind):
    alpha = Image.linear_gradient("L").resize((16, 16))
    again = reopened(encode(waves(16, 16), format=kind, quality=90, alpha=alpha))
    assert again.alpha is not None
    assert again.alpha.tobytes() == alpha.tobytes()


def test_a_transparent_png_does_not_turn_black():
    picture = reopened(save(row("RGBA", (*RED, 255), INVISIBLE), "PNG"))
    data = encode(picture_to_tensor(picture), format=OutputFormat.PNG, quality=1, alpha=picture.alpha)
    with Image.open(io.BytesIO(data)) as image:
        assert list(image.get_flattened_data()) == [(*RED, 255), (*WHITE, 0)]


def test_a_jpeg_is_white_where_it_was_transparent():
    alpha = Image.new("L", (32, 16), 0)
    alpha.paste(255, (0, 0, 16, 16))
    picture = reopened(encode(torch.zeros(1, 3, 16, 32), format=OutputFormat.JPEG, quality=95, alpha=alpha))
    assert close(picture.rgb.getpixel((4, 8)), BLACK)
    assert close(picture.rgb.getpixel((28, 8)), WHITE)


@pytest.mark.parametrize(
    ("kind", "bits"), [(kind, bits) for kind, known in WRITTEN_FORMATS.items() for bits in known.written_bits]
)
def test_a_file_carries_its_description(kind, bits):
    description = '{"nst_stylize": "1"}'
    alpha = Image.linear_gradient("L").resize((16, 16))
    data = encode(waves(16, 16), format=kind, quality=90, bits=bits, alpha=alpha, description=description)
    assert description.encode() in data
    assert reopened(data).size == Size(16, 16)


@pytest.mark.parametrize("kind", [OutputFormat.JPEG, OutputFormat.WEBP])
def test_a_format_without_16_bits_is_refused(kind):
    with pytest.raises(ValueError, match="no 16 bits"):
        encode(waves(8, 8), format=kind, quality=90, bits=16)
