import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.blob_uses import BlobUses
from nst_service.store.blobs import BlobFolder
from nst_service.store.errors import CorruptBlobError
from nst_service.store.records import Blob, BlobKind
from nst_service.store.store import Store

from tests.store.builders import Place, new_job, sha256


def _blob(data: bytes) -> Blob:
    return Blob.hashed(BlobKind.PICTURE, data)


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> BlobFolder:
    urls = {"local": str(tmp_path / "blobs"), "memory": f"memory://{uuid.uuid4().hex}/blobs"}
    return BlobFolder.at(urls[request.param], "me")


class TestFolder:
    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 10_000])
    def test_what_was_put_is_got(self, folder: BlobFolder, data: bytes) -> None:
        folder.put(_blob(data))
        assert folder.has(sha256(data))
        assert folder.get(sha256(data)) == data
        assert folder.names() == {sha256(data)}

    def test_what_was_removed_is_gone_and_removing_it_again_does_no_harm(self, folder: BlobFolder) -> None:
        folder.put(_blob(b"x"))
        for _ in range(2):
            folder.remove(sha256(b"x"))
            assert not folder.has(sha256(b"x"))
        assert folder.names() == set()

    def test_a_missing_blob_is_an_error(self, folder: BlobFolder) -> None:
        with pytest.raises(CorruptBlobError) as caught:
            folder.get(sha256(b"x"))
        assert caught.value.sha256 == sha256(b"x")

    def test_a_blob_is_checked_and_read_part_by_part(self, folder: BlobFolder) -> None:
        folder.put(_blob(b"0123456789"))
        blob = folder.checked(sha256(b"0123456789"))
        assert blob.size == 10
        assert [folder.part(blob, start, 4) for start in (0, 4, 8)] == [b"0123", b"4567", b"89"]

    def test_a_damaged_blob_is_found_before_a_part_of_it_is_read(self, tmp_path: Path) -> None:
        folder = BlobFolder.at(str(tmp_path), "me")
        folder.put(_blob(b"0123456789"))
        (tmp_path / sha256(b"0123456789")).write_bytes(b"012345678x")
        with pytest.raises(CorruptBlobError):
            folder.checked(sha256(b"0123456789"))

    def test_a_blob_that_vanishes_while_it_is_read_is_an_error(self, folder: BlobFolder) -> None:
        folder.put(_blob(b"0123456789"))
        blob = folder.checked(sha256(b"0123456789"))
        folder.remove(blob.sha256)
        with pytest.raises(CorruptBlobError):
            folder.part(blob, 4, 4)

    def test_a_blob_is_checked_once_a_minute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: now)
        folder = BlobFolder.at(str(tmp_path), "me")
        folder.put(_blob(b"x"))
        blob = folder.checked(sha256(b"x"))
        (tmp_path / sha256(b"x")).write_bytes(b"y")
        assert folder.checked(sha256(b"x")) == blob
        now += 61
        with pytest.raises(CorruptBlobError):
            folder.checked(sha256(b"x"))

    def test_putting_the_same_again_writes_nothing(self, tmp_path: Path) -> None:
        folder = BlobFolder.at(str(tmp_path), "me")
        folder.put(_blob(b"x"))
        before = (tmp_path / sha256(b"x")).stat()
        folder.put(_blob(b"x"))
        assert (tmp_path / sha256(b"x")).stat().st_ino == before.st_ino

    def test_a_local_blob_is_on_the_disk_before_it_has_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[str] = []
        folder = BlobFolder.at(str(tmp_path), "me")
        replace = Path.replace
        monkeypatch.setattr("os.fsync", lambda _: calls.append("fsync"))
        monkeypatch.setattr(Path, "replace", lambda self, target: (calls.append("rename"), replace(self, target)))
        folder.put(_blob(b"x"))
        assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda _: b"",
        lambda data: data + b"!",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:40] + bytes([data[40] ^ 128]) + data[41:],
    ],
    ids=["cut", "empty", "longer", "first bit", "a bit within"],
)
class TestDamage:
    DATA = b"a picture of some length, more than forty bytes"

    def test_a_damaged_blob_is_an_error_never_silently_wrong(
        self, tmp_path: Path, damage: Callable[[bytes], bytes]
    ) -> None:
        folder = BlobFolder.at(str(tmp_path), "me")
        folder.put(_blob(self.DATA))
        (tmp_path / sha256(self.DATA)).write_bytes(damage(self.DATA))
        with pytest.raises(CorruptBlobError):
            folder.get(sha256(self.DATA))

    def test_storing_the_same_again_heals_it(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        folder = BlobFolder.at(str(tmp_path), "me")
        folder.put(_blob(self.DATA))
        (tmp_path / sha256(self.DATA)).write_bytes(damage(self.DATA))
        folder.put(_blob(self.DATA))
        assert folder.get(sha256(self.DATA)) == self.DATA


def test_a_job_with_a_damaged_checkpoint_can_be_run_from_its_beginning(place: Place, store: Store) -> None:
    job = store.submit(new_job()).job
    lease = store.lease(job.id)
    assert lease is not None
    store.save_checkpoint(lease, b"half")
    (place.blobs / sha256(b"half")).write_bytes(b"hall")
    with pytest.raises(CorruptBlobError):
        store.checkpoint(job.id)
    assert store.request(job.id) == b"paint this"
    store.save_checkpoint(lease, b"half")
    assert store.checkpoint(job.id) == b"half"


def test_a_lost_file_is_an_error_and_does_not_keep_the_job_from_ending(place: Place, store: Store) -> None:
    job = store.submit(new_job()).job
    (place.blobs / sha256(b"paint this")).unlink()
    with pytest.raises(CorruptBlobError):
        store.request(job.id)
    lease = store.lease(job.id)
    assert lease is not None
    store.finish(lease, JobState.FAILED, outcome=b"the request is damaged")


def test_a_blob_that_is_swept_before_its_job_is_stored_is_stored_again(open_store: Callable[..., Store]) -> None:
    writer, sweeper = open_store(), open_store()
    swept = []

    def sweep_before_the_transaction(blobs: Any) -> None:
        put(blobs)
        swept.append(sweeper.clean().blobs)

    put = writer._uses.put
    writer._uses.put = sweep_before_the_transaction  # type: ignore[method-assign]
    job = writer.submit(new_job()).job
    assert swept == [3]
    assert writer.request(job.id) == b"paint this"
    assert writer.picture("ada", sha256(b"a painting")) == b"a painting"


def test_a_sweep_removes_what_crashes_left_behind_and_nothing_else(
    place: Place, open_store: Callable[..., Store]
) -> None:
    store = open_store()
    job = store.submit(new_job()).job
    dead = BlobUses(store._database, BlobFolder.at(str(place.blobs), "dead"))
    dead.put([_blob(b"renamed, but in no transaction")])
    (place.blobs / "partial.dead.1").write_bytes(b"half")
    ours = place.blobs / f"partial.{store._server_id}.1"
    ours.write_bytes(b"being written")
    assert store.clean().blobs == 1
    assert {path.name for path in place.blob_files()} == {
        ours.name,
        *(sha256(data) for data in (b"paint this", b"a photograph", b"a painting")),
    }
    assert store.request(job.id) == b"paint this"


def test_equal_pictures_of_many_jobs_are_stored_once(place: Place, store: Store) -> None:
    for index in range(5):
        store.submit(new_job(request=b"request %d" % index))
    assert len(place.blob_files()) == 5 + 2
