"""Versions of the schema, and how an older database becomes a newer one.

A tool such as alembic would bring a folder of scripts, a configuration and a template engine for what is one number
and one tuple here: both databases change their schema within transactions, and the versions of a service that is
upgraded in place form a line without branches.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection, insert, inspect, select, update

from nst_service.store.database import Database
from nst_service.store.errors import StoreVersionError
from nst_service.store.schema import METADATA, SCHEMA_VERSION

Upgrade = Callable[[Connection], None]
"""Changes the schema, and what is stored, from one version to the next."""

UPGRADES: Sequence[Upgrade] = ()
"""The first makes version 2 of version 1. Statements are spelled out here, and never made from `schema`, which is what
the newest version looks like."""


def migrate(database: Database, upgrades: Sequence[Upgrade] = UPGRADES) -> None:
    """Make the tables, or bring those of an older version up to date: all of it or nothing.

    Raises:
        StoreVersionError: the tables are of a version that this code does not know.
        StoreError: the database failed.
    """
    newest = 1 + len(upgrades)
    with database.write() as connection:
        database.lock_schema(connection)
        if not inspect(connection).has_table(SCHEMA_VERSION.name):
            METADATA.create_all(connection)
            connection.execute(insert(SCHEMA_VERSION).values(version=newest))
            return
        found = connection.execute(select(SCHEMA_VERSION.c.version)).scalar_one()
        if found > newest:
            raise StoreVersionError(found, newest)
        for upgrade in upgrades[found - 1 :]:
            upgrade(connection)
        connection.execute(update(SCHEMA_VERSION).values(version=newest))
