"""The versions of the schema: how an older database becomes a newer one, and which programs can work with it.

The table `schema_version` holds two numbers. `actual_version` is the version that the tables have. `version` is the
oldest version that a program must know to work with them: a program that knows only smaller ones refuses the database.
An additive upgrade leaves `version` as it is. So servers of the release before can go on beside newer ones on the same
database, and an upgrade of nst can be taken back. Only an upgrade that older programs could not work with raises it.

An additive upgrade may add tables, indexes, and columns that may be NULL or have a default. Older programs do not know
such a column. They insert rows without it, and they change a row without changing it. So a column whose value is
derived from other data must show whether it is still right (see `size_epoch` in `schema`), and the data that it is
derived from must still be written. To rename or drop a column, or to change its meaning, takes two releases: the first
works with both forms, the second makes the change and names the version of the first as `oldest_compatible`.

A tool such as alembic would bring a folder of scripts, a configuration and a template engine for what is one table and
one tuple here: both databases change their schema within transactions, and the versions of a service that is upgraded
in place form a line without branches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Insert, Update, insert, inspect, select, text, update

from nst_service.store.database import Database
from nst_service.store.errors import StoreVersionError
from nst_service.store.schema import METADATA, SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A step from one version of the schema to the next."""

    apply: Callable[[Connection], None]
    """Changes the tables and their rows. Its statements are spelled out and never built from `schema`, which describes
    the newest version."""
    oldest_compatible: int
    """The oldest version whose programs can work with the tables afterwards."""


def _add_result_size(connection: Connection) -> None:
    """Add the size of the result to the jobs, and the actual version of the tables beside the required one.

    The sizes of existing jobs stay unknown, since the store cannot read their events.
    """
    for column in ("width INTEGER", "height INTEGER", "size_epoch INTEGER"):
        connection.execute(text(f"ALTER TABLE jobs ADD COLUMN {column}"))
    connection.execute(text("ALTER TABLE schema_version ADD COLUMN actual_version INTEGER NOT NULL DEFAULT 1"))


def _add_store_id_and_served_time(connection: Connection) -> None:
    """Add the id of the store, and the time that it was served, by which ended jobs age."""
    double = "DOUBLE PRECISION" if connection.dialect.name == "postgresql" else "DOUBLE"
    connection.execute(text(f"ALTER TABLE jobs ADD COLUMN served_at_end {double}"))
    columns = f"id VARCHAR NOT NULL, served_seconds {double} NOT NULL, PRIMARY KEY (id)"
    connection.execute(text(f"CREATE TABLE store ({columns})"))


def _add_followers_and_claims(connection: Connection) -> None:
    """Add the server in whose queue a job waits, the servers whose calls follow a job, and the latest live events.

    Rows of the new tables vanish with their server or job, also if a program of an older version removes it.
    """
    is_postgresql = connection.dialect.name == "postgresql"
    number, data = ("BIGINT", "BYTEA") if is_postgresql else ("INTEGER", "BLOB")
    for statement in (
        "ALTER TABLE jobs ADD COLUMN claimed_by VARCHAR REFERENCES servers (id) ON DELETE SET NULL",
        "CREATE INDEX jobs_by_claim ON jobs (claimed_by)",
        f"""
        CREATE TABLE followed (
            job_number {number} NOT NULL,
            server_id VARCHAR NOT NULL,
            PRIMARY KEY (job_number, server_id),
            FOREIGN KEY (job_number) REFERENCES jobs (number) ON DELETE CASCADE,
            FOREIGN KEY (server_id) REFERENCES servers (id) ON DELETE CASCADE
        )
        """,
        "CREATE INDEX followed_by_server ON followed (server_id)",
        f"""
        CREATE TABLE live_events (
            job_number {number} NOT NULL,
            kind VARCHAR NOT NULL,
            sequence BIGINT NOT NULL,
            data {data} NOT NULL,
            PRIMARY KEY (job_number, kind),
            FOREIGN KEY (job_number) REFERENCES jobs (number) ON DELETE CASCADE
        )
        """,
    ):
        connection.execute(text(statement))


UPGRADES: Sequence[Upgrade] = (
    Upgrade(_add_result_size, oldest_compatible=1),
    Upgrade(_add_store_id_and_served_time, oldest_compatible=1),
    Upgrade(_add_followers_and_claims, oldest_compatible=1),
)
"""The upgrades in their order; the first turns version 1 into version 2."""


def migrate(database: Database, upgrades: Sequence[Upgrade] = UPGRADES) -> None:
    """Create the tables, or upgrade those of an older version, in one transaction.

    Tables of a later version stay as they are if this release can work with them.

    Raises:
        StoreVersionError: this release is too old for the tables.
        StoreError: the database failed.
    """
    newest = 1 + len(upgrades)
    with database.write() as connection:
        database.lock_schema(connection)
        if inspect(connection).has_table(SCHEMA_VERSION.name):
            oldest_compatible, found = _versions(connection)
            if oldest_compatible > newest:
                raise StoreVersionError(oldest_compatible, newest)
            if found >= newest:
                return
            for upgrade in upgrades[found - 1 :]:
                upgrade.apply(connection)
            write: Insert | Update = update(SCHEMA_VERSION)
        else:
            METADATA.create_all(connection)
            write = insert(SCHEMA_VERSION)
        oldest_compatible = max((upgrade.oldest_compatible for upgrade in upgrades), default=1)
        connection.execute(write.values(version=oldest_compatible, actual_version=newest))


def _versions(connection: Connection) -> tuple[int, int]:
    """Return the oldest version that a program must know, and the version that the tables have."""
    version = connection.execute(select(SCHEMA_VERSION.c.version)).scalar_one()
    columns = {column["name"] for column in inspect(connection).get_columns(SCHEMA_VERSION.name)}
    if SCHEMA_VERSION.c.actual_version.name not in columns:
        return version, version
    return version, connection.execute(select(SCHEMA_VERSION.c.actual_version)).scalar_one()
