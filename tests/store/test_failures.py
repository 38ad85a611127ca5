import contextlib
import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem
from nst_service.lifecycle import JobState
from nst_service.store.blobs import BlobFolder
from nst_service.store.errors import (
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreInUseError,
    StoreReadOnlyError,
    StoreUnavailableError,
)
from nst_service.store.location import Location
from nst_service.store.records import Blob, BlobKind, StoredEvent
from nst_service.store.store import Store

from tests.store.builders import ENDLESS, Place, new_job, sha256
from tests.store.foreign_files import ForeignError, ForeignFileSystem
from tests.store.postgres import Postgres
from tests.store.s3 import S3


class _QuotaFile(LocalFileOpener):  # type: ignore[misc]
    def write(self, data: bytes) -> int:
        fits = data[: max(0, self.fs.quota)]
        self.fs.quota -= len(fits)
        super().write(fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(fits)


class _QuotaFileSystem(LocalFileSystem):  # type: ignore[misc]
    """A disk with room for a number of bytes."""

    cachable = False
    quota = 2**40

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **more: Any) -> Any:
        return _QuotaFile(path, mode, fs=self) if "w" in mode else super()._open(path, mode, block_size, **more)


@pytest.fixture
def disk() -> _QuotaFileSystem:
    return _QuotaFileSystem()


@pytest.fixture
def store_on_disk(disk: _QuotaFileSystem, place: Place, open_store: Callable[..., Store]) -> Store:
    return open_store(open_folder=lambda name: BlobFolder(disk, str(place.blobs), name))


class TestFullDiskOfTheBlobs:
    def test_a_new_job_is_refused_and_leaves_nothing_behind(
        self, disk: _QuotaFileSystem, store_on_disk: Store, place: Place
    ) -> None:
        disk.quota = 15
        with pytest.raises(StoreFullError):
            store_on_disk.submit(new_job(request_id="r"))
        assert store_on_disk.queue() == []
        assert not [path for path in place.blob_files() if path.name.startswith("partial")]
        disk.quota = 1000
        assert store_on_disk.submit(new_job(request_id="r")).created

    def test_a_running_job_goes_on_and_keeps_its_last_checkpoint(
        self, disk: _QuotaFileSystem, store_on_disk: Store
    ) -> None:
        job = store_on_disk.submit(new_job()).job
        lease = store_on_disk.lease(job.id)
        assert lease is not None
        store_on_disk.save_checkpoint(lease, b"one")
        disk.quota = 2
        with pytest.raises(StoreFullError):
            store_on_disk.save_checkpoint(lease, b"three")
        assert store_on_disk.checkpoint(job.id) == b"one"
        store_on_disk.append(lease, [StoredEvent(sequence=lease.first_sequence, data=b"progress")])
        with pytest.raises(StoreFullError):
            store_on_disk.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        still = store_on_disk.job(job.id)
        assert still is not None
        assert still.state is JobState.RUNNING
        disk.quota = 1000
        store_on_disk.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        assert store_on_disk.result(job.id) == b"whole"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_below_everything_refuses_writes_and_loses_nothing(small_disk: Path) -> None:
    store = Store.open(small_disk / "data", retention=ENDLESS, lease_seconds=60)
    job = store.submit(new_job()).job
    lease = store.lease(job.id)
    assert lease is not None
    store.save_checkpoint(lease, b"half")
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    written = 0
    with contextlib.suppress(StoreFullError):
        while True:
            store.append(lease, [StoredEvent(sequence=lease.first_sequence + written, data=bytes(4000))])
            written += 1
    with pytest.raises(StoreFullError):
        store.submit(new_job(request=b"another"))
    with pytest.raises(StoreFullError):
        store.save_checkpoint(lease, b"more")
    assert store.checkpoint(job.id) == b"half"
    assert len(store.events(job.id)) == written
    store.clean()
    ballast.unlink()
    store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
    assert store.submit(new_job(request=b"another")).created
    store.close()
    again = Store.open(small_disk / "data", retention=ENDLESS, lease_seconds=60)
    assert again.result(job.id) == b"whole"
    assert len(again.events(job.id)) == written
    again.close()


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """Make a directory whose permissions count: since they do not for root, the test runs as another user."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory(prefix="nst-store-") as name:
            yield Path(name)
            for path in (Path(name), *Path(name).rglob("*")):
                path.chmod(0o700)
    finally:
        if was_root:
            os.seteuid(0)


class TestReadOnlyDirectory:
    def test_no_store_is_made_in_it(self, own_directory: Path) -> None:
        own_directory.chmod(0o500)
        for path in (own_directory, own_directory / "data"):
            with pytest.raises(StoreReadOnlyError):
                Store.open(path, retention=ENDLESS, lease_seconds=60)

    def test_no_store_is_opened_in_it(self, own_directory: Path) -> None:
        Store.open(own_directory, retention=ENDLESS, lease_seconds=60).close()
        for path in own_directory.iterdir():
            path.chmod(0o500 if path.is_dir() else 0o400)
        own_directory.chmod(0o500)
        with pytest.raises(StoreReadOnlyError):
            Store.open(own_directory, retention=ENDLESS, lease_seconds=60)

    def test_one_that_becomes_so_refuses_new_jobs_and_running_ones_go_on(self, own_directory: Path) -> None:
        store = Store.open(own_directory, retention=ENDLESS, lease_seconds=60)
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        (own_directory / "blobs").chmod(0o500)
        own_directory.chmod(0o500)
        with pytest.raises(StoreReadOnlyError):
            store.submit(new_job(request=b"another"))
        with pytest.raises(StoreReadOnlyError):
            store.save_checkpoint(lease, b"half")
        assert store.request(job.id) == b"paint this"
        own_directory.chmod(0o700)
        (own_directory / "blobs").chmod(0o700)
        store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        store.close()


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to look like one" * 100])
def test_a_file_that_is_no_database_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nst.sqlite").write_bytes(content)
    with pytest.raises(StoreCorruptError):
        Store.open(tmp_path, retention=ENDLESS, lease_seconds=60)


class TestPostgresql:
    def test_while_it_is_down_nothing_is_accepted_and_then_all_goes_on(
        self, postgres: Postgres, tmp_path: Path
    ) -> None:
        store = Place(tmp_path, postgres.new_database()).open(lease_seconds=60)
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        postgres.stop()
        try:
            with pytest.raises(StoreUnavailableError):
                store.submit(new_job(request_id="r"))
            with pytest.raises(StoreUnavailableError):
                store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        finally:
            postgres.start()
        store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        assert store.result(job.id) == b"whole"
        assert store.submit(new_job(request_id="r")).created
        store.close()

    def test_one_that_is_read_only_refuses_new_jobs_and_is_read(self, postgres: Postgres, tmp_path: Path) -> None:
        url = postgres.new_database()
        place = Place(tmp_path, url)
        store = place.open()
        job = store.submit(new_job()).job
        store.close()
        name = url.rpartition("/")[2]
        store = place.open()
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with pytest.raises(StoreReadOnlyError):
            store.submit(new_job())
        assert store.job(job.id) == job
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        store.close()

    def test_one_that_is_not_there_is_an_error_without_its_password(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            Place(tmp_path, "postgresql://ada:secret@127.0.0.1:1/nst").open()
        assert "secret" not in str(caught.value)


def test_no_error_tells_where_the_store_is(disk: _QuotaFileSystem, store_on_disk: Store, place: Place) -> None:
    disk.quota = 0
    with pytest.raises(StoreError) as caught:
        store_on_disk.submit(new_job())
    assert str(place.directory) not in str(caught.value)


_PICTURE = Blob.hashed(BlobKind.PICTURE, b"a painting")
_CALLS: dict[str, Callable[[BlobFolder], object]] = {
    "put": lambda folder: folder.put(_PICTURE),
    "get": lambda folder: folder.get(_PICTURE.sha256),
    "has": lambda folder: folder.has(_PICTURE.sha256),
    "names": BlobFolder.names,
    "remove": lambda folder: folder.remove(_PICTURE.sha256),
    "remove_partial": lambda folder: folder.remove_partial([]),
}


class TestErrorsOfTheLibrariesBehindFsspec:
    """They are no OSError."""

    @pytest.mark.parametrize("name", _CALLS)
    def test_every_one_is_an_error_of_the_store(self, tmp_path: Path, name: str) -> None:
        files = ForeignFileSystem()
        folder = BlobFolder(files, str(tmp_path), "me")
        files.error = ForeignError("cannot connect to storage.example")
        with pytest.raises(StoreUnavailableError) as caught:
            _CALLS[name](folder)
        assert caught.value.detail == f"the folder {tmp_path}: ForeignError: cannot connect to storage.example"

    def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(self, tmp_path: Path) -> None:
        files = ForeignFileSystem()
        files.error = ForeignError()
        with pytest.raises(StoreUnavailableError):
            BlobFolder(files, str(tmp_path), "me")

    def test_too_little_memory_is_no_error_of_the_store(self, tmp_path: Path) -> None:
        files = ForeignFileSystem()
        folder = BlobFolder(files, str(tmp_path), "me")
        files.error = MemoryError()
        with pytest.raises(MemoryError):
            folder.get(_PICTURE.sha256)

    def test_a_job_is_refused_while_they_last_and_nothing_is_lost(
        self, place: Place, open_store: Callable[..., Store]
    ) -> None:
        files = ForeignFileSystem()
        store = open_store(open_folder=lambda name: BlobFolder(files, str(place.blobs), name))
        job = store.submit(new_job(request_id="r")).job
        lease = store.lease(job.id)
        assert lease is not None
        files.error = ForeignError()
        calls: list[Callable[[], object]] = [
            lambda: store.submit(new_job(request=b"another")),
            lambda: store.request(job.id),
            lambda: store.save_checkpoint(lease, b"half"),
            lambda: store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole"),
            store.clean,
        ]
        for call in calls:
            with pytest.raises(StoreUnavailableError):
                call()
        files.error = None
        store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        assert store.result(job.id) == b"whole"


def test_s3_that_goes_away_is_an_error_of_the_store_and_everything_goes_on_when_it_is_back(
    s3: S3, place: Place, open_store: Callable[..., Store]
) -> None:
    url = f"s3://bucket/{place.directory.name}"
    store = open_store(open_folder=lambda name: BlobFolder.at(url, name))
    job = store.submit(new_job(request_id="r")).job
    s3.stop()
    with pytest.raises(StoreUnavailableError) as caught:
        store.request(job.id)
    assert f"the folder {url}" in caught.value.detail
    assert str(s3.port) in caught.value.detail
    s3.start()
    assert store.request(job.id) == b"paint this"
    assert store.submit(new_job(request=b"another")).created
    assert sha256(b"paint this") in store._folder.names()


class TestLeasesWhoseAnswerIsLost:
    """The database has committed, and the connection breaks before it says so."""

    @pytest.mark.parametrize("name", ["lease", "release"])
    def test_the_next_lease_gets_the_job(self, store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        job_id = store.submit(new_job()).job.id
        before = store.lease(job_id) if name == "release" else None
        write = store._database.write

        @contextlib.contextmanager
        def losing(**options: bool) -> Iterator[Any]:
            with write(**options) as connection:
                yield connection
                if before:
                    # Here the release itself is lost.
                    raise StoreUnavailableError("the store does not answer")
            raise StoreUnavailableError("the store does not answer")

        monkeypatch.setattr(store._database, "write", losing)
        with pytest.raises(StoreUnavailableError):
            store.release(before) if before else store.lease(job_id)
        monkeypatch.undo()
        lease = store.lease(job_id)
        assert lease is not None, "otherwise no server could run the job as long as this one lives"
        assert lease.epoch == 2
        assert store.lease(job_id) is None
        store.finish(lease, JobState.SUCCEEDED, outcome=b"")


class TestDetails:
    """The operator learns which part of the store fails and why. The client learns neither."""

    @pytest.mark.parametrize(
        ("url", "shown", "secrets"),
        [
            ("/data/blobs", "/data/blobs", []),
            ("s3://bucket/nst", "s3://bucket/nst", []),
            ("s3://key:s%2Fcret@bucket/nst", "s3://bucket/nst", ["s/cret", "s%2Fcret"]),
            ("sftp://ada:secret@files.example:22/nst?token=abc", "sftp://files.example:22/nst", ["secret", "abc"]),
        ],
    )
    def test_a_location_has_no_secret(self, url: str, shown: str, secrets: list[str]) -> None:
        location = Location.of_url(url)
        assert location.name == shown
        detail = location.detail(ForeignError(f"cannot use {url}: {secrets}"))
        assert detail.startswith(f"{shown}: ForeignError: cannot use")
        assert not [secret for secret in secrets if secret in detail]

    def test_a_database_that_does_not_answer_is_named_with_the_reason(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError) as caught:
            Place(tmp_path, "postgresql://ada:secret@127.0.0.1:1/nst?password=hidden").open()
        detail = caught.value.detail
        assert detail.startswith("the database 'nst' at 127.0.0.1:1: ")
        assert "refused" in detail
        assert "secret" not in detail
        assert "hidden" not in detail
        assert str(caught.value) == "the store does not answer"
        assert caught.value.described() == f"the store does not answer: {detail}"

    def test_a_wrong_password_is_told_without_it(self, postgres: Postgres, tmp_path: Path) -> None:
        url = postgres.new_database().replace(postgres.password, "wrong-secret")
        with pytest.raises(StoreUnavailableError) as caught:
            Place(tmp_path, url).open()
        assert "password authentication failed" in caught.value.detail
        assert "wrong-secret" not in caught.value.detail

    def test_a_file_that_is_no_database_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "nst.sqlite"
        file.write_bytes(b"this is no database, but it is long enough to look like one" * 100)
        with pytest.raises(StoreCorruptError) as caught:
            Store.open(tmp_path, retention=ENDLESS, lease_seconds=60)
        assert caught.value.detail == f"the database {file}: file is not a database"

    def test_a_directory_that_is_in_use_is_named(self, tmp_path: Path) -> None:
        store = Store.open(tmp_path, retention=ENDLESS, lease_seconds=60)
        with pytest.raises(StoreInUseError) as caught:
            Store.open(tmp_path, retention=ENDLESS, lease_seconds=60)
        assert str(tmp_path) in caught.value.described()
        store.close()

    def test_a_full_disk_is_named(self, disk: _QuotaFileSystem, store_on_disk: Store, place: Place) -> None:
        disk.quota = 0
        with pytest.raises(StoreFullError) as caught:
            store_on_disk.submit(new_job())
        assert caught.value.detail == f"the folder {place.blobs}: No space left on device"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("s3://key:secret@bucket/nst", "nst-stylize[s3]"),
            ("abfs://secret/nst", "Install adlfs"),
            ("nowhere://ada:secret@host/nst", "Protocol not known: nowhere"),
        ],
    )
    def test_a_folder_that_no_installed_package_can_open_is_refused_with_the_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
    ) -> None:
        for module in ("s3fs", "adlfs"):
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            Store.open(tmp_path, blobs_url=url, retention=ENDLESS, lease_seconds=60)
        assert "secret" not in str(caught.value)
