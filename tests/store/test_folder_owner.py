"""A folder of blobs has one owner, and no file of another one is ever removed."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.blobs import BlobFolder
from nst_service.store.errors import CorruptBlobError, ForeignFolderError, StoreUnavailableError
from nst_service.store.records import Blob, BlobKind
from nst_service.store.schema import METADATA
from nst_service.store.store import Store
from sqlalchemy import insert, select, text

from tests.store.builders import Place, new_job, sha256
from tests.store.postgres import Postgres
from tests.store.s3 import S3


@pytest.fixture
def other(new_place: Callable[[str], Place], place: Place) -> Place:
    """A place with a database of its own and the folder of `place`."""
    other = new_place("other")
    return Place(other.directory, other.database_url, place.blobs)


def _ended(store: Store) -> str:
    job = store.submit(new_job()).job
    lease = store.lease(job.id)
    assert lease is not None
    store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
    return job.id


def _names(place: Place) -> set[str]:
    return {path.name for path in place.blobs.iterdir()}


def test_a_second_server_with_another_database_is_refused_and_removes_nothing(
    place: Place, other: Place, store: Store
) -> None:
    job_id = _ended(store)
    before = _names(place)
    with pytest.raises(ForeignFolderError) as caught:
        other.open()
    assert _names(place) == before
    assert str(place.blobs) in caught.value.detail
    assert str(place.blobs) not in str(caught.value)
    store.clean()
    assert store.result(job_id) == b"whole"


def test_the_owner_of_an_empty_folder_is_the_first_one(other: Place, store: Store) -> None:
    with pytest.raises(ForeignFolderError):
        other.open()
    assert store.submit(new_job()).created


def test_servers_with_one_database_share_the_folder(place: Place, store: Store) -> None:
    job_id = _ended(store)
    again = place.open(lease_seconds=60)
    again.clean()
    assert again.result(job_id) == b"whole"
    again.close()


def test_a_start_without_the_files_of_the_database_is_refused_and_removes_nothing(
    place: Place, other: Place, store: Store
) -> None:
    _ended(store)
    store.close()
    before = _names(place)
    with pytest.raises(ForeignFolderError):
        other.open()
    assert _names(place) == before


def test_two_servers_that_claim_an_empty_folder_at_once_both_go_away(
    place: Place, other: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = BlobFolder.add_mark

    def claimed_by_both(folder: BlobFolder, store_id: str) -> None:
        add(folder, "another")
        add(folder, store_id)

    monkeypatch.setattr(BlobFolder, "add_mark", claimed_by_both)
    with pytest.raises(ForeignFolderError, match="another database"):
        place.open()
    assert _names(place) == {"store.another"}
    (place.blobs / "store.another").unlink()
    monkeypatch.undo()
    other.open().close()


class TestFolderWithoutMark:
    """The folder of a release that made no marks."""

    def test_the_database_that_knows_its_files_becomes_the_owner(self, place: Place, store: Store) -> None:
        job_id = _ended(store)
        store.close()
        (mark,) = _names(place) - {path.name for path in place.blob_files()}
        (place.blobs / mark).unlink()
        again = place.open()
        assert again.result(job_id) == b"whole"
        assert mark in _names(place)
        again.close()

    def test_a_database_that_does_not_know_its_files_is_refused(self, place: Place, other: Place, store: Store) -> None:
        _ended(store)
        for path in place.blobs.glob("store.*"):
            path.unlink()
        before = _names(place)
        with pytest.raises(ForeignFolderError, match="another database"):
            other.open()
        assert _names(place) == before

    def test_a_database_that_knows_only_a_picture_of_it_is_refused(
        self, place: Place, new_place: Callable[[str], Place], store: Store
    ) -> None:
        third = new_place("third")
        mine = third.open()
        mine.submit(new_job(request=b"of the third", pictures=[b"another photograph", b"a painting"]))
        mine.close()
        _ended(store)
        for path in place.blobs.glob("store.*"):
            path.unlink()
        with pytest.raises(ForeignFolderError):
            Place(third.directory, third.database_url, place.blobs).open()

    def test_an_empty_one_is_not_claimed_while_jobs_need_files(
        self, place: Place, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        job_id = _ended(store)
        store.close()
        (mark,) = {path.name for path in place.blobs.glob("store.*")}
        aside = place.blobs.rename(place.directory / "aside")
        again = place.open()
        assert f"create the file {mark}" in caplog.text
        with pytest.raises(StoreUnavailableError):
            again.result(job_id)
        with pytest.raises(StoreUnavailableError):
            again.submit(new_job(request=b"another"))
        place.blobs.rmdir()
        (aside / mark).unlink()
        aside.rename(place.blobs)
        again.clean()
        assert again.result(job_id) == b"whole"
        assert mark in _names(place)
        again.close()

    def test_an_empty_one_can_be_claimed_by_hand(self, place: Place, store: Store) -> None:
        job_id = _ended(store)
        store.close()
        (mark,) = {path.name for path in place.blobs.glob("store.*")}
        shutil.rmtree(place.blobs)
        again = place.open()
        (place.blobs / mark).touch()
        with pytest.raises(CorruptBlobError):
            again.result(job_id)
        assert again.submit(new_job(request=b"another")).created
        again.close()


class TestFolderThatGoesAway:
    """A folder that is not mounted any more is an empty one."""

    @pytest.fixture
    def away(self, place: Place, store: Store) -> str:
        job_id = _ended(store)
        place.blobs.rename(place.directory / "aside")
        place.blobs.mkdir()
        return job_id

    def test_its_blobs_are_unavailable_and_not_lost(self, place: Place, store: Store, away: str) -> None:
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.result(away)
        place.blobs.rmdir()
        (place.directory / "aside").rename(place.blobs)
        assert store.result(away) == b"whole"

    def test_nothing_is_written_into_the_empty_one(self, place: Place, store: Store, away: str) -> None:
        with pytest.raises(StoreUnavailableError):
            store.submit(new_job(request=b"another"))
        assert _names(place) == set()
        assert store.job(away)

    @pytest.mark.usefixtures("away")
    def test_no_row_is_removed_for_a_file_that_is_away(self, place: Place, store: Store) -> None:
        with store._database.write() as connection:
            dropped = store._uses.drop(connection, 1)
        with pytest.raises(StoreUnavailableError):
            store._uses.discard(dropped)
        place.blobs.rmdir()
        (place.directory / "aside").rename(place.blobs)
        assert store.clean().blobs == len(dropped)
        assert place.blob_files() == []


def test_files_that_the_database_does_not_know_are_left_alone(place: Place, store: Store) -> None:
    _ended(store)
    stranger = Blob.hashed(BlobKind.RESULT, b"of a later state of the database")
    BlobFolder.at(str(place.blobs), "stranger").put(stranger)
    removed = store.clean()
    assert (removed.blobs, removed.unknown) == (0, 1)
    assert stranger.sha256 in _names(place)


def test_an_older_copy_of_the_database_goes_on_and_keeps_the_files_of_later_jobs(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    store = place.open()
    earlier = _ended(store)
    store.close()
    copy = tmp_path / "copy.sqlite"
    with sqlite3.connect(tmp_path / "nst.sqlite") as source, sqlite3.connect(copy) as target:
        source.backup(target)
    store = place.open()
    store.submit(new_job(request=b"later"))
    store.close()
    for path in tmp_path.glob("nst.sqlite*"):
        path.unlink()
    copy.rename(tmp_path / "nst.sqlite")
    store = place.open()
    assert store.clean().unknown == 1
    assert store.result(earlier) == b"whole"
    assert sha256(b"later") in _names(place)
    store.close()


def test_a_move_to_postgresql_keeps_the_folder(postgres: Postgres, tmp_path: Path) -> None:
    before = Place(tmp_path, None)
    store = before.open()
    job_id = _ended(store)
    store.close()
    after = Place(tmp_path, postgres.new_database())
    source, target = before.database(), after.database()
    with source.read() as reading, target.write() as writing:
        METADATA.create_all(writing)
        for table in METADATA.sorted_tables:
            if rows := [dict(row._mapping) for row in reading.execute(select(table))]:
                writing.execute(insert(table), rows)
        writing.execute(text("SELECT setval('jobs_number_seq', (SELECT max(number) FROM jobs))"))
    source.close()
    target.close()
    store = after.open()
    assert store.clean().unknown == 0
    assert store.result(job_id) == b"whole"
    assert store.submit(new_job(request=b"another")).created
    store.close()


def test_a_folder_on_s3_has_one_owner_too(s3: S3, place: Place, other: Place, open_store: Callable[..., Store]) -> None:
    del s3
    url = f"s3://bucket/{place.directory.name}"
    store = open_store(open_folder=lambda name: BlobFolder.at(url, name))
    job_id = _ended(store)
    with pytest.raises(ForeignFolderError):
        other.open(open_folder=lambda name: BlobFolder.at(url, name))
    store.clean()
    assert store.result(job_id) == b"whole"
