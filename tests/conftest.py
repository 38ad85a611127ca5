import io

import pytest
import torch
from nst_service.engine.pictures import PictureFormat, encode
from nst_service.engine.vgg import Vgg19
from nst_service.engine.weights import Weights, load_weights
from PIL import Image


@pytest.fixture(scope="session")
def weights() -> Weights:
    return load_weights("caffe")


@pytest.fixture(scope="session")
def model(weights: Weights) -> Vgg19:
    return Vgg19(weights, "cpu")


def _textured(width: int, height: int, seed: int) -> bytes:
    noise = torch.rand(1, 3, max(2, height // 4), max(2, width // 4), generator=torch.Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return encode(pixels, format=PictureFormat.PNG, quality=95)


@pytest.fixture(scope="session")
def content_png() -> bytes:
    return _textured(48, 37, seed=1)


@pytest.fixture(scope="session")
def style_png() -> bytes:
    return _textured(40, 50, seed=2)


@pytest.fixture(scope="session")
def one_pixel_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    return buffer.getvalue()
