"""The database below the store, SQLite or PostgreSQL: transactions, and everything that differs between the two."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nst_service.store.database_url import parse_database_url
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.failures import database_failure
from nst_service.store.location import Location

_BUSY_SECONDS = 30
"""Seconds that a transaction waits for another one or for a connection."""
_IDLE_SECONDS = 15
"""Seconds for which a transaction may wait for something else than the database, such as S3, while others may wait for
what it has locked. PostgreSQL ends it then."""
_SWITCH_POLL_SECONDS = 0.01
"""Seconds between two checks whether another connection has switched a new database to a write-ahead log."""
_CONNECT_SECONDS = 10
"""Seconds that a PostgreSQL server may take to answer."""
_KEEPALIVE_SECONDS = 10
"""Seconds between two probes of a silent connection to PostgreSQL."""
_MAX_WAL_BYTES = 64 * 2**20
"""The size in bytes to which SQLite truncates its write-ahead log after a burst of writes."""
_PORT = 5432
"""The port of PostgreSQL unless its URL has another one."""
_SCHEMA_LOCK = 0x6E7374
"""The key of our advisory lock in a PostgreSQL database."""
_OWNER_LOCKS = 0x6E7374
"""The first of the two keys of our advisory locks of owners, which PostgreSQL keeps apart from locks with one key."""


class _Dialect(Protocol):
    """The operations that differ between databases."""

    insert: Any
    """The function that builds an INSERT with ON CONFLICT."""
    location: Location
    """The database, for messages."""

    def make_engine(self) -> Engine:
        """Return an engine for the database."""

    def begin_read(self, connection: Connection) -> None:
        """Start a read-only transaction."""

    def begin_write(self, connection: Connection, *, durable: bool, may_idle: bool, patience: float) -> None:
        """Start a transaction that writes (see `Database.write`)."""

    def lock_schema(self, connection: Connection) -> None:
        """Lock the schema against other servers until the transaction ends."""

    def lock_owner(self, connection: Connection, owner: str) -> None:
        """Let one transaction at a time count the jobs of an owner, until it ends."""


class _Sqlite:
    """A SQLite file with a write-ahead log, so that readers and the one writer do not wait for each other.

    Every commit hands its part of the log to the operating system, so that it survives any end of this process.
    `synchronous` decides whether it survives a crash of the machine, too: FULL waits for the disk, NORMAL does not, and
    neither can corrupt the database. What clients rely on is written with FULL, which also makes everything durable
    that was written before. What another run would only repeat is written with NORMAL.
    """

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path):
        self._path = path
        self.location = Location(f"the database {path}")

    def make_engine(self) -> Engine:
        # Without an isolation level the driver begins no transactions, so that we can choose how they begin.
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            connect_args={"isolation_level": None, "timeout": _BUSY_SECONDS},
            pool_timeout=_BUSY_SECONDS,
        )

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            _enable_write_ahead_log(connection)
            for setting in ("foreign_keys = ON", f"journal_size_limit = {_MAX_WAL_BYTES}"):
                connection.execute(f"PRAGMA {setting}")

        return engine

    def begin_read(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    def begin_write(self, connection: Connection, *, durable: bool, may_idle: bool, patience: float) -> None:
        del may_idle, patience
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        # A transaction that begins as a reader cannot wait for a writer when it starts to write, and fails.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def lock_schema(self, connection: Connection) -> None:
        """Do nothing, since SQLite has one writer at a time."""

    def lock_owner(self, connection: Connection, owner: str) -> None:
        """Do nothing, since SQLite has one writer at a time."""


def _enable_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a database to a write-ahead log, which is permanent.

    While another connection is switching the database, SQLite reports that it is busy at once: it does not wait where
    waiting could be a deadlock. So this polls.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_SWITCH_POLL_SECONDS)


class _Postgresql:
    """A PostgreSQL database, which several servers may share."""

    insert = staticmethod(postgresql.insert)

    def __init__(self, url: URL):
        self._url = url.set(drivername="postgresql+psycopg")
        address = f"{url.host or 'the local socket'}:{url.port or _PORT}"
        self.location = Location(f"the database {url.database!r} at {address}", _secrets(url))

    def make_engine(self) -> Engine:
        defaults = {
            "connect_timeout": _CONNECT_SECONDS,
            # So a server that vanishes without closing the connection is noticed, too, whether it has acknowledged the
            # last statement or not.
            "tcp_user_timeout": 1000 * _BUSY_SECONDS,
            "keepalives_idle": _KEEPALIVE_SECONDS,
            "keepalives_interval": _KEEPALIVE_SECONDS,
            "keepalives_count": _BUSY_SECONDS // _KEEPALIVE_SECONDS,
        }
        return create_engine(
            self._url,
            connect_args={
                **{name: value for name, value in defaults.items() if name not in self._url.query},
                # A prepared statement belongs to a connection of the database, and a pooler such as PgBouncer gives
                # each transaction another one.
                "prepare_threshold": None,
            },
            # The transactions expect it, whatever the default of the database is.
            isolation_level="READ COMMITTED",
            pool_timeout=_BUSY_SECONDS,
            pool_pre_ping=True,
        )

    def begin_read(self, connection: Connection) -> None:
        """Do nothing, since the driver begins transactions."""

    def begin_write(self, connection: Connection, *, durable: bool, may_idle: bool, patience: float) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{1000 * patience:.0f}ms'")
        if not may_idle:
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        if not durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    def lock_schema(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def lock_owner(self, connection: Connection, owner: str) -> None:
        # Two owners whose names have the same hash wait for each other.
        connection.execute(select(func.pg_advisory_xact_lock(_OWNER_LOCKS, func.hashtext(owner))))


class Database:
    """Transactions whose errors are those of the store. Any thread may use it."""

    def __init__(self, dialect: _Dialect):
        self._dialect = dialect
        self._engine = dialect.make_engine()

    @classmethod
    def at(cls, path: Path) -> "Database":
        """Return the SQLite database in a file, which is created if it does not exist."""
        return cls(_Sqlite(path))

    @classmethod
    def of(cls, url: str) -> "Database":
        """Return the PostgreSQL database at a URL.

        Raises:
            ValueError: the URL is not one of PostgreSQL, or has an option that is not accepted.
        """
        return cls(_Postgresql(parse_database_url(url)))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a read-only transaction.

        Raises:
            StoreError: the database failed.
        """
        with self._transaction() as connection:
            self._dialect.begin_read(connection)
            yield connection

    @contextmanager
    def write(
        self, *, durable: bool = True, may_idle: bool = False, patience: float = _BUSY_SECONDS
    ) -> Iterator[Connection]:
        """Begin a transaction that writes; its end commits it, and an exception rolls it back.

        Args:
            durable: whether to wait until the transaction survives a power failure. Without that it still survives the
                end of the process, and is never stored in part.
            may_idle: whether the transaction must keep its locks for as long as it takes, even if it waits for
                something else than the database.
            patience: seconds that the transaction waits for what others have locked, if the database is PostgreSQL.

        Raises:
            IntegrityError: a constraint was violated; this is SQLAlchemy's own error.
            StoreError: the database failed.
        """
        with self._transaction() as connection:
            self._dialect.begin_write(connection, durable=durable, may_idle=may_idle, patience=patience)
            yield connection

    def insert(self, table: Table) -> Any:
        """Return an INSERT that supports ON CONFLICT."""
        return self._dialect.insert(table)

    def lock_schema(self, connection: Connection) -> None:
        """Lock the schema against other servers until the transaction ends."""
        self._dialect.lock_schema(connection)

    def lock_owner(self, connection: Connection, owner: str) -> None:
        """Let one transaction at a time, on any server, count the jobs of an owner, until it ends."""
        self._dialect.lock_owner(connection, owner)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except PoolTimeoutError as error:
            message = "every connection to the database is in use"
            raise StoreUnavailableError(message, self._dialect.location.name) from error
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise database_failure(error, self._dialect.location) from error


def _secrets(url: URL) -> tuple[str, ...]:
    """Return the passwords in a URL, which no message may contain."""
    parameter = url.query.get("password", ())
    passwords = [url.password, *([parameter] if isinstance(parameter, str) else parameter)]
    return tuple(str(password) for password in passwords if password)
