import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from nst_service.lifecycle import JobState
from nst_service.store.database import Database
from nst_service.store.errors import StoreVersionError
from nst_service.store.schema import METADATA, SCHEMA_VERSION
from nst_service.store.store import Store
from nst_service.store.versions import UPGRADES, Upgrade, migrate
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
        version: int = connection.execute(select(SCHEMA_VERSION.c.actual_version)).scalar_one()
        return version


def _required_version(database: Database) -> int:
    with database.read() as connection:
        version: int = connection.execute(select(SCHEMA_VERSION.c.version)).scalar_one()
        return version


def _add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 7"))


def _raise_halfway(connection: Connection) -> None:
    _add_column(connection)
    raise RuntimeError("half way")


_add_priority = Upgrade(_add_column, oldest_compatible=1)
_need_priority = Upgrade(_add_column, oldest_compatible=_NEWEST + 1)
_fail_halfway = Upgrade(_raise_halfway, oldest_compatible=1)


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
    migrate(database, [*UPGRADES, _fail_halfway, Upgrade(note, oldest_compatible=1)])
    assert _version(database) == _NEWEST + 2
    assert steps == [7], "the step that was done before is not done again"
    with database.read() as connection:
        assert connection.execute(text("SELECT id FROM jobs")).scalar_one() == job.id


def test_a_database_of_a_later_version_that_requires_it_is_refused_and_left_alone(
    databases: Callable[[], Database], place: Place
) -> None:
    database = databases()
    migrate(database, [*UPGRADES, _need_priority])
    with pytest.raises(StoreVersionError) as caught:
        place.open()
    assert (caught.value.required, caught.value.known) == (_NEWEST + 1, _NEWEST)
    assert _version(database) == _required_version(database) == _NEWEST + 1


def test_a_database_of_a_later_version_that_does_not_require_it_is_used_and_left_alone(
    databases: Callable[[], Database], place: Place
) -> None:
    database = databases()
    migrate(database, [*UPGRADES, _add_priority])
    store = place.open()
    job = store.submit(new_job()).job
    assert store.job(job.id) == job
    store.close()
    assert (_required_version(database), _version(database)) == (1, _NEWEST + 1)
    migrate(database, [*UPGRADES, _add_priority])


def test_the_version_that_a_program_must_know_is_the_largest_that_any_upgrade_asks_for(
    databases: Callable[[], Database],
) -> None:
    database = databases()
    migrate(database, [*UPGRADES, _need_priority, Upgrade(lambda _: None, oldest_compatible=1)])
    assert (_required_version(database), _version(database)) == (_NEWEST + 1, _NEWEST + 2)


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
    """A hundred turns suffice to meet the switch to a write-ahead log, for which SQLite does not wait."""
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


def test_a_database_that_version_1_left_behind_is_used_as_if_it_were_new(
    place: Place, new_place: Callable[[str], Place]
) -> None:
    new = new_place("new")
    _restore_version_1(place)
    store = place.open()
    ended = store.job("ended")
    assert ended is not None
    assert (ended.state, ended.outcome, ended.size) == (JobState.SUCCEEDED, b"well", None)
    assert [event.data for event in store.events("ended")] == [b"accepted", b"completed"]
    assert [(job.id, job.size) for job in store.queue()] == [("waiting", None)]
    store.close()
    new.open().close()
    assert _tables(place) == _tables(new), "a change of the tables needs an upgrade from the version before"


def test_a_database_that_is_upgraded_says_that_programs_of_version_1_can_work_with_it(
    databases: Callable[[], Database], place: Place
) -> None:
    _restore_version_1(place)
    database = databases()
    migrate(database)
    assert (_required_version(database), _version(database)) == (1, _NEWEST)


def _restore_version_1(place: Place) -> None:
    """Make the database that version 1 left behind."""
    folder = Path(__file__).parent
    if place.database_url:
        with psycopg.connect(place.database_url) as server:
            server.execute((folder / "version_1_postgresql.sql").read_bytes())
    else:
        connection = sqlite3.connect(place.directory / "nst.sqlite")
        connection.executescript((folder / "version_1_sqlite.sql").read_text())
        connection.close()


def _tables(place: Place) -> dict[str, object]:
    database = place.database()
    with database.read() as connection:
        made = inspect(connection)
        tables = {
            name: (
                [{**column, "type": str(column["type"])} for column in made.get_columns(name)],
                made.get_pk_constraint(name),
                _foreign_keys(connection, name),
                made.get_unique_constraints(name),
                made.get_indexes(name),
            )
            for name in made.get_table_names()
        }
    database.close()
    return tables


def _foreign_keys(connection: Connection, table: str) -> object:
    """Return the foreign keys of a table, whether they were made with it or with a column that was added to it."""
    if connection.dialect.name == "postgresql":
        return inspect(connection).get_foreign_keys(table)
    # SQLAlchemy finds the actions of a key only if the key was made with the table.
    return sorted(tuple(row)[2:] for row in connection.execute(text(f"PRAGMA foreign_key_list({table})")))
