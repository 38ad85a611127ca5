"""Blobs as files of any file system that fsspec knows, named by their sha256."""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nst_service.store.errors import CorruptBlobError
from nst_service.store.failures import system_failure
from nst_service.store.records import Blob

_PARTIAL = "partial"
"""First part of the name of a file that is being written; its writer's id follows."""


class BlobFolder:
    """Files that are either whole or not there: written under another name, then renamed."""

    def __init__(self, files: AbstractFileSystem, root: str, writer: str):
        """Open a folder, and make it where it does not exist.

        Args:
            files: where the folder is.
            root: its path there.
            writer: tells our unfinished files from those of other processes; no dots.

        Raises:
            StoreError: it cannot be made.
        """
        self._files = files
        self._root = root.rstrip("/")
        self._writer = writer
        self._is_local = isinstance(files, LocalFileSystem)
        with _translated():
            files.makedirs(self._root, exist_ok=True)

    @classmethod
    def at(cls, url: str, writer: str) -> "BlobFolder":
        """Open the folder that fsspec finds at a URL or a path; raises as the constructor does."""
        # Other processes write here too: what was listed once says nothing on what is there now.
        files, root = url_to_fs(url, use_listings_cache=False)
        return cls(files, root, writer)

    def put(self, blob: Blob) -> None:
        """Store a blob; one that is there already, and undamaged, is left alone.

        Raises:
            StoreError: it cannot be stored. Nothing is left behind.
        """
        with _translated():
            if self._holds(blob):
                return
            partial = self._path(f"{_PARTIAL}.{self._writer}.{uuid.uuid4().hex}")
            try:
                with self._files.open(partial, "wb") as file:
                    for part in blob.parts:
                        file.write(part)
                    self._sync(file)
                self._rename(partial, self._path(blob.sha256))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._files.rm_file(partial)
                raise

    def has(self, sha256: str) -> bool:
        """Return whether a blob is there, damaged or not."""
        with _translated():
            return bool(self._files.exists(self._path(sha256)))

    def get(self, sha256: str) -> bytes:
        """Read a blob.

        Raises:
            CorruptBlobError: it is missing, or not what was stored.
            StoreError: it cannot be read.
        """
        with _translated():
            try:
                data: bytes = self._files.cat_file(self._path(sha256))
            except FileNotFoundError as error:
                raise CorruptBlobError(sha256) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptBlobError(sha256)
        return data

    def remove(self, sha256: str) -> None:
        """Remove a blob, if it is there."""
        self._remove(self._path(sha256))

    def names(self) -> set[str]:
        """Return the sha256 of every blob."""
        return {name for name in self._names() if "." not in name}

    def remove_partial(self, writers: Collection[str]) -> None:
        """Remove the unfinished files of all but some writers."""
        for name in self._names():
            prefix, _, rest = name.partition(".")
            if prefix == _PARTIAL and rest.partition(".")[0] not in writers:
                self._remove(self._path(name))

    def free_bytes(self) -> int | None:
        """Return how much the disk still holds; None where that cannot be known."""
        if not self._is_local:
            return None
        with _translated():
            return int(shutil.disk_usage(self._root).free)

    def _holds(self, blob: Blob) -> bool:
        try:
            if self._files.info(self._path(blob.sha256))["size"] != blob.size:
                return False
            self.get(blob.sha256)
        except (FileNotFoundError, CorruptBlobError):
            return False
        return True

    def _names(self) -> list[str]:
        with _translated():
            return [path.rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]

    def _remove(self, path: str) -> None:
        with _translated(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(path)

    def _sync(self, file: Any) -> None:
        """Wait until a file is on the disk; what is not local is there once it is closed."""
        if self._is_local:
            file.flush()
            os.fsync(file.fileno())

    def _rename(self, source: str, target: str) -> None:
        if not self._is_local:
            self._files.mv(source, target)
            return
        # Where a rename fails, `mv` copies, and a reader could find half a file.
        Path(source).replace(target)
        folder = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise system_failure(error) from error
