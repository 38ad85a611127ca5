"""What errors of databases and of file systems mean to the store."""

import errno
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy.exc import DBAPIError

from nst_service.store.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

_PRIMARY_CODE = 0xFF
"""Of an extended result code of SQLite."""

_SQLITE: Mapping[int, type[StoreError]] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: StoreFullError,
        sqlite3.SQLITE_READONLY: StoreReadOnlyError,
        sqlite3.SQLITE_PERM: StoreReadOnlyError,
        # The files beside the database cannot be made or opened.
        sqlite3.SQLITE_CANTOPEN: StoreReadOnlyError,
        sqlite3.SQLITE_CORRUPT: StoreCorruptError,
        sqlite3.SQLITE_NOTADB: StoreCorruptError,
    }
)

_POSTGRESQL: Mapping[str, type[StoreError]] = MappingProxyType(
    {
        "53100": StoreFullError,
        "25006": StoreReadOnlyError,
        "42501": StoreReadOnlyError,
        "XX001": StoreCorruptError,
        "XX002": StoreCorruptError,
    }
)
"""By SQLSTATE: disk_full, read_only_sql_transaction, insufficient_privilege, data_corrupted, index_corrupted."""

_SYSTEM: Mapping[int, type[StoreError]] = MappingProxyType(
    {
        errno.ENOSPC: StoreFullError,
        errno.EDQUOT: StoreFullError,
        errno.EFBIG: StoreFullError,
        errno.EROFS: StoreReadOnlyError,
        errno.EACCES: StoreReadOnlyError,
        errno.EPERM: StoreReadOnlyError,
    }
)

_MESSAGES: Mapping[type[StoreError], str] = MappingProxyType(
    {
        StoreFullError: "the store is full",
        StoreReadOnlyError: "the store cannot be written to",
        StoreCorruptError: "the database of the store is damaged",
        StoreUnavailableError: "the store does not answer",
    }
)


def database_failure(error: DBAPIError) -> StoreError:
    """Return what an error of the database means."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        # Errors that the driver finds by itself have no code.
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return _error(_SQLITE.get(code & _PRIMARY_CODE))
    return _error(_POSTGRESQL.get(getattr(cause, "sqlstate", None) or ""))


def system_failure(error: OSError) -> StoreError:
    """Return what an error of a file system means."""
    return _error(_SYSTEM.get(error.errno or 0))


def _error(kind: type[StoreError] | None) -> StoreError:
    kind = kind or StoreUnavailableError
    return kind(_MESSAGES[kind])
