import torch
from nst_service.engine.pictures.preview import EncodedPreview, preview
from nst_service.engine.sizes import Size

from tests.engine.pictures.builders import GREY, close, colours, reopened, waves


def test_a_large_picture_is_scaled_down():
    small = preview(waves(300, 400), longest_edge=100)
    assert (small.width, small.height) == (100, 75)
    assert reopened(small.data).size == Size(100, 75)


def test_a_small_picture_is_not_enlarged():
    small = preview(waves(20, 10), longest_edge=100)
    assert (small.width, small.height) == reopened(small.data).size == Size(10, 20)


def test_it_is_a_jpeg():
    small = preview(waves(20, 10), longest_edge=16)
    assert isinstance(small, EncodedPreview)
    assert small.data.startswith(b"\xff\xd8\xff")


def test_fine_detail_is_averaged_not_aliased():
    stripes = torch.tensor([0.0, 1.0]).repeat(128).expand(1, 3, 256, 256)
    picture = reopened(preview(stripes, longest_edge=32).data)
    assert all(close(colour, GREY, 8) for colour in colours(picture))
