import pytest
import torch
from nst_service.engine.choices import OutputFormat
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.engine.sizes import Size
from PIL import Image

from tests.engine.pictures.builders import (
    BLACK,
    GREEN,
    GREY,
    INVISIBLE,
    RED,
    WHITE,
    close,
    colours,
    noise,
    opacity,
    reopened,
    row,
    save,
)


def half_transparent() -> Picture:
    return reopened(save(row("RGBA", (*RED, 255), (0, 255, 0, 128), INVISIBLE), "PNG"))


def test_hidden_colours_become_white():
    assert colours(half_transparent()) == [RED, GREEN, WHITE]
    assert opacity(half_transparent()) == [255, 128, 0]


def test_flattening_composes_on_white():
    flat = half_transparent().flattened()
    assert flat.alpha is None
    assert colours(flat) == [RED, (127, 255, 127), WHITE]


def test_flattening_leaves_the_original_as_it_is():
    picture = half_transparent()
    picture.flattened()
    assert colours(picture) == [RED, GREEN, WHITE]


def test_an_opaque_picture_is_flat_already():
    opaque = Picture.blank(Size(2, 2))
    assert opaque.flattened() is opaque


def test_hidden_colours_do_not_bleed_when_resized():
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((*RED, 255), (0, 0, 32, 64))
    small = reopened(save(image, "PNG")).resized(Size(7, 7))
    assert small.alpha is not None
    visible = [colour for colour, alpha in zip(colours(small), opacity(small), strict=True) if alpha > 8]
    assert visible
    assert all(close(colour, RED, 8) for colour in visible)
    assert small.rgb.getpixel((6, 3)) == WHITE


def test_the_same_size_is_the_same_picture():
    picture = Picture.blank(Size(5, 4))
    assert picture.resized(Size(5, 4)) is picture


@pytest.mark.parametrize("size", [Size(1, 1), Size(3, 50), Size(50, 3), Size(640, 480)])
def test_a_plain_picture_stays_plain(size):
    resized = Picture.blank(Size(33, 21)).resized(size)
    assert resized.size == size
    assert set(colours(resized)) == {GREY}


def test_the_mean_is_kept_when_shrinking_much():
    picture = reopened(encode(noise(600, 800), format=OutputFormat.PNG, quality=1))
    assert abs(float(picture_to_tensor(picture.resized(Size(8, 6))).mean()) - 0.5) < 0.01


def test_a_picture_becomes_a_batch_of_one_in_unit_range():
    tensor = picture_to_tensor(reopened(save(row("RGB", (255, 0, 51), BLACK), "PNG")))
    assert tensor.shape == (1, 3, 1, 2)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert tensor[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
