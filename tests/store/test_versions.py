import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from nst_service.jobs.states import JobState
from nst_service.store.database import Database
from nst_service.store.errors import StoreVersionError
from nst_service.store.schema import METADATA, SCHEMA_VERSION
from nst_service.store.store import Store
from nst_service.store.versions import UPGRADES, migrate
from sqlalchemy import Connection, inspect, select, text

from tests.store.builders import Place, new_job

_NEWEST = 1 + len(UPGRADES)


@pytest.fixture
def databases(place: Place) -> Any:
    opened: list[Database] = []

    def connect() -> Database:
        opened.append(place.database())
        return opened[-1]

    yield connect
    for database in opened:
        database.close()


def _version(database: Database) -> int:
    with database.read() as connection:
        version: int = connection.execute(select(SCHEMA_VERSION.c.version)).scalar_one()
        return version


def _add_priority(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 7"))


def _fail_halfway(connection: Connection) -> None:
    _add_priority(connection)
    raise RuntimeError("half way")


def test_an_empty_database_gets_the_newest_tables(databases: Callable[[], Database]) -> None:
    database = databases()
    migrate(database)
    assert _version(database) == _NEWEST
    with database.read() as connection:
        made = inspect(connection)
        for table in METADATA.sorted_tables:
            assert {column["name"] for column in made.get_columns(table.name)} == set(table.columns.keys())


def test_a_database_that_is_up_to_date_is_left_alone(databases: Callable[[], Database], store: Store) -> None:
    job = store.submit(new_job()).job
    migrate(databases())
    assert store.job(job.id) == job


def test_an_older_database_is_upgraded_step_by_step_with_its_jobs(
    databases: Callable[[], Database], place: Place
) -> None:
    store = place.open()
    job = store.submit(new_job()).job
    store.close()
    database, steps = databases(), []

    def note(connection: Connection) -> None:
        steps.append(connection.execute(text("SELECT priority FROM jobs")).scalar_one())

    migrate(database, [*UPGRADES, _add_priority])
    assert _version(database) == _NEWEST + 1
    migrate(database, [*UPGRADES, _fail_halfway, note])
    assert _version(database) == _NEWEST + 2
    assert steps == [7], "the step that was done before is not done again"
    with database.read() as connection:
        assert connection.execute(text("SELECT id FROM jobs")).scalar_one() == job.id


def test_a_database_of_a_later_version_is_refused_and_left_alone(
    databases: Callable[[], Database], place: Place
) -> None:
    database = databases()
    migrate(database, [*UPGRADES, _add_priority])
    with pytest.raises(StoreVersionError) as caught:
        place.open()
    assert (caught.value.found, caught.value.known) == (_NEWEST + 1, _NEWEST)
    assert _version(database) == _NEWEST + 1


def test_an_upgrade_that_fails_changes_nothing(databases: Callable[[], Database], place: Place) -> None:
    place.open().close()
    database = databases()
    with pytest.raises(RuntimeError, match="half way"):
        migrate(database, [*UPGRADES, _fail_halfway])
    assert _version(database) == _NEWEST
    with database.read() as connection:
        assert "priority" not in {column["name"] for column in inspect(connection).get_columns("jobs")}
    place.open().close()


def test_servers_that_start_at_once_make_or_upgrade_the_tables_once(databases: Callable[[], Database]) -> None:
    opened = [databases() for _ in range(4)]
    for upgrades in (UPGRADES, [*UPGRADES, _add_priority]):
        with ThreadPoolExecutor(len(opened)) as threads:
            list(threads.map(lambda database, upgrades=upgrades: migrate(database, upgrades), opened))
    assert {_version(database) for database in opened} == {_NEWEST + 1}


def test_servers_that_meet_at_a_new_file_wait_for_the_one_that_sets_it_up(tmp_path: Path) -> None:
    """Takes turns enough for the switch to a write-ahead log, which SQLite does not wait for, to be met."""
    for turn in range(100):
        opened = [Database.at(tmp_path / f"{turn}.sqlite") for _ in range(8)]
        with ThreadPoolExecutor(len(opened)) as threads:
            assert list(threads.map(_write_once, opened)) == [0] * len(opened)
        for database in opened:
            database.close()


def _write_once(database: Database) -> int:
    with database.write() as connection:
        version: int = connection.execute(text("PRAGMA user_version")).scalar_one()
        return version


def test_a_database_that_version_1_left_behind_is_used_as_if_it_were_new(tmp_path: Path) -> None:
    old, new = Place(tmp_path / "old", None), Place(tmp_path / "new", None)
    for place in (old, new):
        place.directory.mkdir()
    connection = sqlite3.connect(old.directory / "nst.sqlite")
    connection.executescript((Path(__file__).parent / "version_1.sql").read_text())
    connection.close()
    store = old.open()
    ended = store.job("ended")
    assert ended is not None
    assert (ended.state, ended.outcome) == (JobState.SUCCEEDED, b"well")
    assert [event.data for event in store.events("ended")] == [b"accepted", b"completed"]
    assert [job.id for job in store.queue()] == ["waiting"]
    store.close()
    new.open().close()
    assert _tables(old) == _tables(new), "a change of the tables needs an upgrade from the version before"


def _tables(place: Place) -> dict[str, object]:
    database = place.database()
    with database.read() as connection:
        made = inspect(connection)
        tables = {
            name: (
                [{**column, "type": str(column["type"])} for column in made.get_columns(name)],
                made.get_pk_constraint(name),
                made.get_foreign_keys(name),
                made.get_unique_constraints(name),
                made.get_indexes(name),
            )
            for name in made.get_table_names()
        }
    database.close()
    return tables
