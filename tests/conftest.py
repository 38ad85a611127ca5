import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nst_service.engine.choices import OutputFormat
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights, load_weights
from nst_service.engine.pictures.encode import encode
from nst_service.store.errors import failures_log
from paint_style import paint
from PIL import Image
from skimage.data import chelsea


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of Ray last: Ray changes the signals and the log records of its process."""
    items.sort(key=lambda item: item.path.parent.name == "ray")


@pytest.fixture(scope="session", autouse=True)
def _no_jobs_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers store their jobs below a folder of the tests, unless a test says otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def _own_jobs(_no_jobs_of_the_user: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of a test have a folder of their own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The loggers have the handlers and levels of the tests again after a test in which the command line ran."""
    loggers = [*map(logging.getLogger, ("", "nst_service", "sqlalchemy")), failures_log]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    logging.captureWarnings(False)
    logging.getLogger("grpc._cython.cygrpc").filters.clear()
    for logger, handlers, level in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def weights() -> Weights:
    return load_weights("caffe")


@pytest.fixture(scope="session")
def model(weights: Weights) -> Vgg19:
    return Vgg19(weights, "cpu")


def _textured(width: int, height: int, seed: int) -> bytes:
    noise = torch.rand(1, 3, max(2, height // 4), max(2, width // 4), generator=torch.Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(noise, (height, width), mode="bilinear")
    return encode(pixels, format=OutputFormat.PNG, quality=95)


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


@pytest.fixture(scope="session")
def real_pictures() -> tuple[bytes, bytes]:
    """A photograph and a painting, 160 px at their longest edge."""
    pictures = []
    # Multiples of 16: other programs drop the rest of a pooling.
    for picture in (Image.fromarray(chelsea()), paint(320, 224)):
        picture.resize((160, 112), Image.Resampling.LANCZOS).save(buffer := io.BytesIO(), "PNG")
        pictures.append(buffer.getvalue())
    return pictures[0], pictures[1]
