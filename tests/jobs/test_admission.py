from types import SimpleNamespace
from typing import Any

import pytest
from nst_service.jobs.admission import Admission
from nst_service.jobs.availability import Availability
from nst_service.jobs.errors import QuotaExceededError, UnknownPictureError
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.quotas import Owner, Quota

_OWNER = Owner(name="ada", quota=Quota(jobs=1))


class Pictures:
    """A store that has pictures, and notes which of them are read."""

    def __init__(self, sizes: dict[str, int]):
        self.sizes = sizes
        self.read: list[str] = []

    async def picture_bytes(self, owner: str, pictures: Any) -> int:
        assert owner == _OWNER.name
        for sha256 in pictures:
            if sha256 not in self.sizes:
                raise UnknownPictureError(sha256)
        return sum(self.sizes[sha256] for sha256 in pictures)

    def picture(self, _: str, sha256: str) -> bytes:
        self.read.append(sha256)
        return bytes(self.sizes[sha256])


def admission(store: Pictures, table: JobTable) -> tuple[Admission, list[int]]:
    """Return an admission, and the bytes that it holds whenever a request is read."""
    held: list[int] = []

    async def in_thread(call: Any, *arguments: Any) -> Any:
        held.append(made.pending.shared.held)
        return call(*arguments)

    async def outline(*_: object) -> None:
        raise LookupError

    availability = Availability()
    availability.serve()
    planner: Any = SimpleNamespace(in_thread=in_thread, outline=outline, prepare=outline)
    pool: Any = SimpleNamespace(running=[], idle_devices=1)
    limits = QueueLimits(max_queued=4, max_pending_bytes=1000, max_running=1)
    any_store: Any = store
    made = Admission(any_store, table, pool, planner, availability, limits=limits, is_alone=True)
    return made, held


def read(find: Any) -> Any:
    return SimpleNamespace(request=find("big"), request_id=None)


async def test_pictures_that_a_request_names_count_before_they_are_read():
    store = Pictures({"big": 500})
    made, held = admission(store, JobTable())
    with pytest.raises(LookupError):
        await made.estimate(read, _OWNER, 10, ["big"])
    assert held == [510]
    assert made.pending.shared.held == 0


async def test_an_owner_without_room_for_a_job_makes_the_server_read_no_picture():
    store, table = Pictures({"big": 500}), JobTable()
    made, _ = admission(store, table)
    with table.admitting(_OWNER.name), pytest.raises(QuotaExceededError):
        async with made.prepared(read, _OWNER, None, 10, ["big"]):
            pass
    assert store.read == []


async def test_an_unknown_picture_is_told_before_others_are_read():
    store = Pictures({"big": 500})
    made, _ = admission(store, JobTable())
    with pytest.raises(UnknownPictureError):
        await made.estimate(read, _OWNER, 10, ["big", "unknown"])
    assert store.read == []
