"""A file system whose failures are no OSError, as those of the libraries behind fsspec are."""

from typing import Any

from fsspec.implementations.local import LocalFileSystem


class ForeignError(Exception):
    """An error of a library that nst does not know."""


class ForeignFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A folder that can be away. Every call fails then."""

    cachable = False
    error: Exception | None = None

    def __getattribute__(self, name: str) -> Any:
        error = object.__getattribute__(self, "__dict__").get("error")
        if error and name in ("open", "info", "exists", "ls", "cat_file", "mv", "rm_file", "makedirs"):
            raise error
        return super().__getattribute__(name)
