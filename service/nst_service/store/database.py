"""The database below the store, SQLite or PostgreSQL: transactions, and all that differs between the two."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from nst_service.store.errors import StoreUnavailableError
from nst_service.store.failures import database_failure

_BUSY_SECONDS = 30
"""How long a transaction waits for another one, or for a connection."""
_SWITCH_POLL_SECONDS = 0.01
"""How often to look whether another connection is done with switching a new database to a write-ahead log."""
_CONNECT_SECONDS = 10
"""How long a server of PostgreSQL may take to answer."""
_MAX_WAL_BYTES = 64 * 2**20
"""What SQLite leaves of its write-ahead log once a burst of writes is over."""
_SCHEMA_LOCK = 0x6E7374
"""Names our advisory lock among those of a PostgreSQL database."""


class _Dialect(Protocol):
    """What differs between databases."""

    insert: Any
    """Makes an INSERT that can say ON CONFLICT."""

    def make_engine(self) -> Engine:
        """Return connections to the database."""

    def begin_read(self, connection: Connection) -> None:
        """Start a transaction that only reads."""

    def begin_write(self, connection: Connection, *, durable: bool) -> None:
        """Start a transaction that writes; one that is not durable may be lost if the machine, not we, goes down."""

    def lock_schema(self, connection: Connection) -> None:
        """Keep every other server from changing the schema until the transaction ends."""


class _Sqlite:
    """One file, with a write-ahead log: readers and the one writer do not wait for each other.

    What the log gets is handed to the operating system at every commit, so that it survives the end of this process,
    however that comes. Whether it also survives the end of the machine is what `synchronous` decides: FULL waits for
    the disk, NORMAL does not, and keeps the database whole all the same. What clients rely on is written with FULL, and
    takes along all that was written before; what a run would only repeat is written with NORMAL.
    """

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path):
        self._path = path

    def make_engine(self) -> Engine:
        # Without an isolation level the driver leaves transactions alone, and they begin as we say.
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            connect_args={"isolation_level": None, "timeout": _BUSY_SECONDS},
            pool_timeout=_BUSY_SECONDS,
        )

        @event.listens_for(engine, "connect")
        def set_up(connection: Any, _record: Any) -> None:
            _keep_write_ahead_log(connection)
            for setting in ("foreign_keys = ON", f"journal_size_limit = {_MAX_WAL_BYTES}"):
                connection.execute(f"PRAGMA {setting}")

        return engine

    def begin_read(self, connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    def begin_write(self, connection: Connection, *, durable: bool) -> None:
        connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        # A transaction that only finds out later that it writes cannot wait for another one, and fails.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def lock_schema(self, connection: Connection) -> None:
        """Do nothing: who writes is alone."""


def _keep_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch a database to a write-ahead log, which it then has for good.

    Whoever comes second to a database that is just being switched is told that it is busy at once: SQLite waits for
    the switch only where nobody could wait for us in turn.
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
    """A server of PostgreSQL, which many of ours may share."""

    insert = staticmethod(postgresql.insert)

    def __init__(self, url: URL):
        self._url = url.set(drivername="postgresql+psycopg")

    def make_engine(self) -> Engine:
        return create_engine(
            self._url,
            connect_args={
                "connect_timeout": _CONNECT_SECONDS,
                # A server that has vanished without a word is noticed, too.
                "tcp_user_timeout": 1000 * _BUSY_SECONDS,
            },
            pool_timeout=_BUSY_SECONDS,
            pool_pre_ping=True,
        )

    def begin_read(self, connection: Connection) -> None:
        """Do nothing: the driver begins transactions."""

    def begin_write(self, connection: Connection, *, durable: bool) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_BUSY_SECONDS}s'")
        if not durable:
            connection.exec_driver_sql("SET LOCAL synchronous_commit = off")

    def lock_schema(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")


class Database:
    """Transactions, whose errors are those of the store. Any thread may use it."""

    def __init__(self, dialect: _Dialect):
        self._dialect = dialect
        self._engine = dialect.make_engine()

    @classmethod
    def at(cls, path: Path) -> "Database":
        """Return the SQLite database in a file, which is made where it does not exist."""
        return cls(_Sqlite(path))

    @classmethod
    def of(cls, url: str) -> "Database":
        """Return a database of PostgreSQL.

        Raises:
            ValueError: this is no URL of PostgreSQL.
        """
        try:
            parsed = make_url(url)
        except ArgumentError:
            parsed = None
        # What is wrong with it is not quoted: it may hold a password.
        if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
            raise ValueError("the database must be given as postgresql://USER:PASSWORD@HOST:PORT/NAME")
        return cls(_Postgresql(parsed))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Begin a transaction that only reads.

        Raises:
            StoreError: the database failed.
        """
        with self._transaction() as connection:
            self._dialect.begin_read(connection)
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Begin a transaction that writes; it is committed at the end, or undone by an exception.

        Args:
            durable: whether to wait until it would survive a power failure. What is not durable survives the end of
                the process all the same, and is never half there.

        Raises:
            IntegrityError: of SQLAlchemy, where a constraint was violated.
            StoreError: the database failed.
        """
        with self._transaction() as connection:
            self._dialect.begin_write(connection, durable=durable)
            yield connection

    def insert(self, table: Table) -> Any:
        """Return an INSERT that can say ON CONFLICT."""
        return self._dialect.insert(table)

    def lock_schema(self, connection: Connection) -> None:
        """Keep every other server from changing the schema until the transaction ends."""
        self._dialect.lock_schema(connection)

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
        except DBAPIError as error:
            raise database_failure(error) from error
        except PoolTimeoutError as error:
            raise StoreUnavailableError("every connection to the database is in use") from error
