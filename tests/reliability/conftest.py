"""`pytest tests/reliability --chaos --seed N`: the long forms, which `make chaos` runs."""

import random
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.serving import KillableServer, Launcher, MakeRequest, Story, Undisturbed

# A fixture is known where its name is.
from tests.rpc.conftest import quick_start, request_  # noqa: F401

_QUICK = pb.TransferOptions(
    image_size=32,
    preview_every=2,
    scales=1,
    init=pb.INIT_RANDOM,
    content_layers=[pb.LayerWeight(layer="relu2_1")],
    style_layers=[pb.LayerWeight(layer="relu1_1")],
)
"""Options with steps of a few milliseconds, and a different picture for every seed."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", action="store_true", help="run the long forms of the tests of reliability")
    parser.addoption("--seed", type=int, help="of all that is left to chance there; default: another one every time")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("seed", None) is None:
        config.option.seed = secrets.randbelow(2**32) if config.getoption("chaos", False) else 0


def pytest_report_header(config: pytest.Config) -> str:
    return f"reliability: --seed {config.option.seed}"


@pytest.fixture
def chaos(pytestconfig: pytest.Config) -> bool:
    """Whether to run the long forms of the tests."""
    return bool(pytestconfig.getoption("chaos", False))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> int:
    """The seed of everything random."""
    return int(pytestconfig.getoption("seed", 0))


@pytest.fixture
def rng(chance: int, request: pytest.FixtureRequest) -> random.Random:
    """The random numbers of a test. They are the same for the same seed, whichever other tests run."""
    return random.Random(f"{chance} {request.node.name}")


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


@pytest.fixture
def server(launcher: Launcher, tmp_path: Path) -> Iterator[KillableServer]:
    """A server that has not been started yet."""
    server = KillableServer(launcher, tmp_path)
    yield server
    server.kill()


@pytest.fixture
def named(content_png: bytes, style_png: bytes) -> MakeRequest:
    """Return a function that makes a request with a unique id, unless the fields have one."""

    def named(iterations: int = 20, seed: int = 0, **fields: Any) -> pb.StylizeRequest:
        request = pb.StylizeRequest(
            options=_QUICK,
            **{
                "content": pb.Picture(data=content_png),
                "request_id": str(uuid.uuid4()),
                "styles": [pb.Style(picture=pb.Picture(data=style_png))],
            }
            | fields,
        )
        request.options.iterations = iterations
        request.options.seed = seed
        return request

    return named


@pytest.fixture(scope="session")
def undisturbed(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """Return a function that returns the picture of a request on a server where nothing breaks."""
    server = KillableServer(launcher, tmp_path_factory.mktemp("undisturbed"))
    server.start(checkpoint_seconds=1e6)
    pictures: dict[bytes, bytes] = {}

    async def undisturbed(request: pb.StylizeRequest) -> bytes:
        options = request.options.SerializeToString(deterministic=True)
        if options not in pictures:
            async with server.stub() as stub:
                await stub.serving()
                story = Story()
                plain = pb.StylizeRequest(content=request.content, styles=request.styles, options=request.options)
                await story.read(stub.stylize(plain))
            pictures[options] = story.data
        return pictures[options]

    yield undisturbed
    server.kill()
