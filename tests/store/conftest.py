from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from nst_service.store.store import Store

from tests.store.builders import Clock, Place
from tests.store.postgres import Postgres, run_postgres
from tests.store.s3 import S3, run_s3


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with run_postgres() as server:
        yield server


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    yield from run_s3(monkeypatch)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Place]:
    """Return a function that makes places by their names, all of them with the same kind of database."""
    server: Postgres | None = request.getfixturevalue("postgres") if request.param == "postgresql" else None

    def make(name: str) -> Place:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        return Place(directory, server.new_database() if server else None)

    return make


@pytest.fixture
def place(new_place: Callable[[str], Place]) -> Place:
    """The place where a test may open stores; every test has its own."""
    return new_place(".")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(place: Place, clock: Clock) -> Iterator[Callable[..., Store]]:
    """Return a function that opens stores at the place."""
    with ExitStack() as stores:

        def open_one(**changes: object) -> Store:
            store = place.open(clock=clock, **changes)
            stores.callback(store.close)
            return store

        yield open_one


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()
