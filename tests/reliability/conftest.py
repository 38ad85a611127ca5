"""`pytest tests/reliability --chaos --seed N`: the long forms, which `make chaos` runs."""

import secrets

import pytest

# A fixture is known where its name is.
from tests.rpc.conftest import quick_start, request_  # noqa: F401


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
    """Whether to run the long form."""
    return bool(pytestconfig.getoption("chaos", False))


@pytest.fixture
def chance(pytestconfig: pytest.Config) -> int:
    """The seed of everything that is left to chance."""
    return int(pytestconfig.getoption("seed", 0))
