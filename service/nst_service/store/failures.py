"""Translation of the errors of databases and file systems into those of the store."""

import errno
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from nst_service.store.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from nst_service.store.location import Location

_PRIMARY_CODE = 0xFF
"""The bits of the primary result code within an extended result code of SQLite."""

_SQLITE: Mapping[int, type[StoreError]] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: StoreFullError,
        sqlite3.SQLITE_READONLY: StoreReadOnlyError,
        sqlite3.SQLITE_PERM: StoreReadOnlyError,
        # SQLite cannot create or open the files beside the database.
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
"""The errors by SQLSTATE: disk_full, read_only_sql_transaction, insufficient_privilege, data_corrupted and
index_corrupted."""

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


def database_failure(error: Exception, location: Location) -> StoreError:
    """Return the error of the store for an error of the database.

    Args:
        error: an error of SQLAlchemy, of a driver, or of the system below them.
        location: the database.
    """
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        # Errors that the driver itself detects have no code.
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return _error(_SQLITE.get(code & _PRIMARY_CODE), location, cause)
    return _error(_POSTGRESQL.get(getattr(cause, "sqlstate", None) or ""), location, cause)


def file_failure(error: Exception, location: Location) -> StoreError:
    """Return the error of the store for an error of a file system.

    Args:
        error: an error of the system or, in file systems of fsspec, of the library behind them.
        location: the file or folder.
    """
    return _error(_SYSTEM.get(getattr(error, "errno", None) or 0), location, error)


def _error(kind: type[StoreError] | None, location: Location, cause: BaseException) -> StoreError:
    kind = kind or StoreUnavailableError
    return kind(_MESSAGES[kind], location.detail(cause))
