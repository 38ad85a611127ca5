"""Blobs as files of any file system that fsspec supports, named by their SHA-256."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nst_service.store.errors import CorruptBlobError, StoreError, StoreUnavailableError
from nst_service.store.failures import file_failure
from nst_service.store.location import Location
from nst_service.store.records import Blob, StoredBlob

_S3_PROTOCOLS = ("s3", "s3a")
_MARK = "store"
"""The first part of the name of a mark; the id of the store that owns the folder follows. Release 0.1.0 ignores files
with a dot in their names."""
_EXPLANATION = b"The nst server with the database of this id owns the folder. It removes files that no job uses.\n"
_PARTIAL = "partial"
"""The first part of the name of an unfinished file; the id of its writer follows."""

_PART_BYTES = 2**20
"""Bytes of a blob that are read at once, where it is not needed as a whole."""
_CHECKED_SECONDS = 60.0
"""Seconds for which a blob that was undamaged counts as undamaged."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """The outcome of a check of a blob."""

    blob: StoredBlob
    until: float
    """Time until which the blob counts as undamaged, on the clock of `time.monotonic`."""


class BlobFolder:
    """A folder of blobs. Each is written under another name and then renamed, so that it is never there in part."""

    def __init__(self, files: AbstractFileSystem, root: str, writer: str, location: Location | None = None):
        """Open a folder, and create it if it does not exist.

        Args:
            files: the file system of the folder.
            root: the path of the folder in the file system.
            writer: an id without dots that tells the unfinished files of this process from those of others.
            location: the name of the folder in messages; None for its path.

        Raises:
            StoreError: the folder cannot be created.
        """
        self._files = files
        self._root = root.rstrip("/")
        self._writer = writer
        self._is_local = isinstance(files, LocalFileSystem)
        self.location = location or Location(f"the folder {root}")
        """The name of the folder in messages."""
        self._required_mark: str | None = None
        self._checked: Mapping[str, _Checked] = {}
        with self._translated():
            files.makedirs(self._root, exist_ok=True)

    @classmethod
    def at(cls, url: str, writer: str) -> "BlobFolder":
        """Open the folder at a URL or a path, as fsspec reads it.

        Raises:
            ValueError: no file system has the protocol of the URL, or its package is not installed.
            StoreError: the folder cannot be created.
        """
        location = Location.of_url(url)
        location = dataclasses.replace(location, name=f"the folder {location.name}")
        try:
            # Other processes write here too, so a cached listing may be out of date.
            files, root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            raise ValueError(_missing_package(url, error)) from error
        except ValueError as error:
            raise ValueError(f"the folder of the blobs cannot be used: {location.detail(error)}") from error
        except Exception as error:
            raise file_failure(error, location) from error
        return cls(files, root, writer, location)

    def put(self, blob: Blob) -> None:
        """Write a blob, unless an undamaged copy is there already.

        Raises:
            StoreError: the blob cannot be written. No part of it is left behind.
        """
        with self._translated():
            if self._holds(blob):
                return
            if self._is_local:
                # A folder that is not mounted can be written to.
                self._check_mark()
            partial = self._path(f"{_PARTIAL}.{self._writer}.{uuid.uuid4().hex}")
            try:
                with self._files.open(partial, "wb") as file:
                    for part in blob.parts:
                        file.write(part)
                    self._sync(file)
                self._rename(partial, self._path(blob.sha256))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm_file(partial)
                raise

    def has(self, sha256: str) -> bool:
        """Return whether a blob is there, even if it is damaged."""
        with self._translated():
            return bool(self._files.exists(self._path(sha256)))

    def get(self, sha256: str) -> bytes:
        """Read a blob.

        Raises:
            CorruptBlobError: the blob is missing or damaged.
            StoreError: the blob cannot be read.
        """
        with self._translated():
            try:
                data: bytes = self._files.cat_file(self._path(sha256))
            except FileNotFoundError as error:
                self._check_mark()
                raise CorruptBlobError(sha256) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptBlobError(sha256)
        return data

    def checked(self, sha256: str) -> StoredBlob:
        """Return a blob that is undamaged, or was so less than a minute ago. It is read part by part.

        Raises:
            CorruptBlobError: the blob is missing or damaged.
            StoreError: the blob cannot be read.
        """
        known = self._checked.get(sha256)
        if known and known.until > time.monotonic():
            return known.blob
        digest, size = hashlib.sha256(), 0
        with self._translated():
            try:
                with self._files.open(self._path(sha256), "rb", block_size=_PART_BYTES) as file:
                    while part := file.read(_PART_BYTES):
                        digest.update(part)
                        size += len(part)
            except FileNotFoundError as error:
                self._check_mark()
                raise CorruptBlobError(sha256) from error
        if digest.hexdigest() != sha256:
            raise CorruptBlobError(sha256)
        now, blob = time.monotonic(), StoredBlob(sha256, size)
        # Replaced and never changed, because any thread may read it.
        recent = {name: each for name, each in self._checked.items() if each.until > now}
        self._checked = recent | {sha256: _Checked(blob, now + _CHECKED_SECONDS)}
        return blob

    def part(self, blob: StoredBlob, start: int, size: int) -> bytes:
        """Read a part of a blob.

        Raises:
            CorruptBlobError: the blob is missing or shorter.
            StoreError: the blob cannot be read.
        """
        end = min(start + size, blob.size)
        with self._translated():
            try:
                data: bytes = self._files.cat_file(self._path(blob.sha256), start=start, end=end)
            except FileNotFoundError as error:
                self._check_mark()
                raise CorruptBlobError(blob.sha256) from error
        if len(data) != end - start:
            raise CorruptBlobError(blob.sha256)
        return data

    def remove(self, sha256: str) -> None:
        """Remove a blob if it is there."""
        self._remove(self._path(sha256))

    def names(self) -> set[str]:
        """Return the SHA-256 of every blob."""
        return {name for name in self._names() if "." not in name}

    def marks(self) -> set[str]:
        """Return the ids of the stores whose marks the folder carries."""
        return {name.removeprefix(f"{_MARK}.") for name in self._names() if name.startswith(f"{_MARK}.")}

    def add_mark(self, store_id: str) -> None:
        """Mark the folder as that of a store."""
        with self._translated(), self._files.open(self._path(self.mark_name(store_id)), "wb") as file:
            file.write(_EXPLANATION)
            self._sync(file)

    def remove_mark(self, store_id: str) -> None:
        """Remove the mark of a store."""
        self._remove(self._path(self.mark_name(store_id)))

    def require_mark(self, store_id: str) -> None:
        """Count a missing blob as unavailable from now on, and not as lost, while the mark of a store is missing."""
        self._required_mark = store_id

    def mark_name(self, store_id: str) -> str:
        """Return the name of the file that marks the folder as that of a store."""
        return f"{_MARK}.{store_id}"

    def remove_partial(self, writers: Collection[str]) -> None:
        """Remove the unfinished files of all writers except the given ones."""
        for name in self._names():
            prefix, _, rest = name.partition(".")
            if prefix == _PARTIAL and rest.partition(".")[0] not in writers:
                self._remove(self._path(name))

    def free_bytes(self) -> int | None:
        """Return the free space of the disk in bytes; None if the folder is not on a local disk."""
        if not self._is_local:
            return None
        with self._translated():
            return int(shutil.disk_usage(self._root).free)

    def _holds(self, blob: Blob) -> bool:
        """Return whether an undamaged copy of a blob is there, which only reading it can prove."""
        try:
            if self._files.info(self._path(blob.sha256))["size"] != blob.size:
                return False
            self.get(blob.sha256)
        except (FileNotFoundError, CorruptBlobError):
            return False
        return True

    def _names(self) -> list[str]:
        with self._translated():
            try:
                return [path.rpartition("/")[2] for path in self._files.ls(self._root, detail=False)]
            except FileNotFoundError:
                if self._is_local:
                    raise
                # Object stores have no empty folders.
                return []

    def _remove(self, path: str) -> None:
        with self._translated():
            try:
                self._files.rm_file(path)
            except FileNotFoundError:
                self._check_mark()

    def _check_mark(self) -> None:
        """Check that the folder is the one that was opened.

        Raises:
            StoreUnavailableError: the folder does not carry the required mark.
        """
        if self._required_mark is None:
            return
        try:
            self._files.info(self._path(self.mark_name(self._required_mark)))
        except FileNotFoundError as error:
            detail = f"{self.location.name}: it has lost its mark; is it mounted?"
            raise StoreUnavailableError("the store does not answer", detail) from error

    def _sync(self, file: Any) -> None:
        """Wait until a local file is on the disk; files elsewhere are stored once they are closed."""
        if self._is_local:
            file.flush()
            os.fsync(file.fileno())

    def _rename(self, source: str, target: str) -> None:
        if not self._is_local:
            self._files.mv(source, target)
            return
        # If renaming fails, `mv` of fsspec copies the file, and a reader could find half of it.
        Path(source).replace(target)
        folder = os.open(self._root, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn every error of the file system into one of the store.

        The libraries behind fsspec raise errors of their own, such as those of botocore, which are no OSError.
        """
        try:
            yield
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            raise file_failure(error, self.location) from error


def _missing_package(url: str, error: ImportError) -> str:
    protocol = url.partition("://")[0]
    if protocol in _S3_PROTOCOLS:
        remedy = "pip install 'nst-stylize[s3]'"
    else:
        remedy = f"install the package that fsspec needs for it ({error})"
    return f"a folder with {protocol}:// needs a package that is not installed: {remedy}"
