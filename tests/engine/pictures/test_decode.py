import pytest
from nst_service.engine.sizes import Size
from PIL import Image

from tests.engine.pictures.builders import BLUE, GREEN, RED, close, colours, reopened, row, save

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_every_accepted_format_keeps_its_colours(kind):
    picture = reopened(save(Image.new("RGB", (7, 5), (200, 100, 50)), kind))
    assert picture.size == (picture.width, picture.height) == Size(7, 5)
    assert picture.alpha is None
    assert all(close(colour, (200, 100, 50), 6) for colour in colours(picture))


@pytest.mark.parametrize("size", [Size(1, 1), Size(1, 37), Size(37, 1), Size(13, 17)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_odd_sizes_are_kept(kind, size):
    assert reopened(save(Image.new("RGB", size), kind)).size == size


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs_are_read(compression):
    assert colours(reopened(save(row("RGB", RED, GREEN), "TIFF", compression=compression))) == [RED, GREEN]


def test_a_bigtiff_is_read():
    assert colours(reopened(save(row("RGB", RED, GREEN), "TIFF", big_tiff=True))) == [RED, GREEN]


def test_only_the_first_frame_counts():
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    for kind in ("PNG", "WEBP", "TIFF", "MPO"):
        picture = reopened(save(first, kind, save_all=True, append_images=[second]))
        assert close(colours(picture)[0], RED, 8), kind
        assert picture.size == Size(4, 4)


def test_a_progressive_jpeg_is_read():
    image = Image.linear_gradient("L")
    assert reopened(save(image, "JPEG", progressive=True)).size == image.size
