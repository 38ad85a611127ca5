"""The reports of a run, made from a thread as a worker does, with a store that does what a test wants."""

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from nst_service.jobs import sink as sink_module
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.events import Event, Queued, Reduced, Started
from nst_service.jobs.job import Drained, Job
from nst_service.jobs.observer import Fact, JobCheckpointed, JobShrunk, JobStarted, StoreFailed
from nst_service.jobs.sink import LoopSink, Requeued
from nst_service.store.errors import StoreUnavailableError

from tests.jobs.builders import FakeJobStore, make_job, make_result

_STARTED = Started(device="cpu", queued_seconds=0.0)
_OTHER = Queued(position=0, eta_seconds=0.0)
_REDUCED = Reduced(width=4, height=3)
_UNAVAILABLE = StoreUnavailableError("the store does not answer")


@dataclass
class Reporting:
    """A sink and what is around it."""

    job: Job = field(default_factory=make_job)
    store: FakeJobStore = field(default_factory=FakeJobStore)
    storing: BackgroundTasks = field(default_factory=BackgroundTasks)
    facts: list[Fact] = field(default_factory=list)
    checkpoint_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.sink = LoopSink(self.job, self.store, self.storing, self, self.checkpoint_seconds)

    def notify(self, fact: Fact) -> None:
        self.facts.append(fact)

    @property
    def events(self) -> list[Event]:
        return [logged.event for logged in (*self.job.log._kept, *self.job.log._latest.values())]

    async def report(self, name: str, value: Any) -> None:
        """Report something from a thread, and wait for what follows from it."""
        await asyncio.to_thread(getattr(self.sink, name), value)
        for _ in range(3):
            await asyncio.sleep(0)
        await self.storing.wait()


@pytest.fixture
async def reporting() -> Reporting:
    return Reporting()


async def test_the_start_is_published_and_stored(reporting: Reporting):
    await reporting.report("publish", _STARTED)
    assert reporting.events == [_STARTED]
    assert reporting.store.calls == ["append"]
    assert reporting.facts == [JobStarted(reporting.job, "cpu")]


async def test_other_events_are_published_only(reporting: Reporting):
    await reporting.report("publish", _OTHER)
    assert reporting.events == [_OTHER]
    assert reporting.store.calls == []


async def test_an_event_that_cannot_be_stored_is_published_all_the_same(reporting: Reporting):
    reporting.store.answers["append"] = _UNAVAILABLE
    await reporting.report("publish", _STARTED)
    await reporting.report("shrunk", _REDUCED)
    assert reporting.events == [_STARTED, _REDUCED]
    assert reporting.facts.count(StoreFailed("append", _UNAVAILABLE)) == 2


async def test_a_smaller_size_is_stored_before_it_is_published_and_the_run_waits_for_the_store(reporting: Reporting):
    gate = reporting.store.gates["append"] = asyncio.Event()
    shrinking = asyncio.create_task(reporting.report("shrunk", _REDUCED))
    while not reporting.store.calls:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    assert not shrinking.done()
    assert reporting.events == []
    gate.set()
    await shrinking
    assert reporting.events == [_REDUCED]
    assert reporting.facts == [JobShrunk(reporting.job)]


async def test_smaller_tiles_are_no_event(reporting: Reporting):
    await reporting.report("shrunk", None)
    assert reporting.events == []
    assert reporting.store.calls == []
    assert reporting.facts == [JobShrunk(reporting.job)]


async def test_no_other_checkpoint_is_wanted_before_one_is_stored(reporting: Reporting):
    control = reporting.job.control
    wanted, gate = control.next_checkpoint, asyncio.Event()
    reporting.store.gates["save_checkpoint"] = gate
    saving = asyncio.create_task(reporting.report("save", object()))
    while not reporting.store.calls:
        await asyncio.sleep(0.001)
    # The run compares this time with that of the snapshot that it has handed over.
    assert control.next_checkpoint == wanted
    gate.set()
    await saving
    assert control.next_checkpoint > wanted
    (fact,) = reporting.facts
    assert isinstance(fact, JobCheckpointed)


async def test_checkpoints_are_as_far_apart_as_the_setting_says():
    started = time.monotonic()
    reporting = Reporting(checkpoint_seconds=1000.0)
    assert reporting.job.control.next_checkpoint >= started + 1000.0
    await reporting.report("save", object())
    assert reporting.job.control.next_checkpoint >= started + 1000.0


async def test_checkpoints_take_a_small_share_of_the_time(reporting: Reporting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sink_module, "_CHECKPOINT_SHARE", 1e-9)
    await reporting.report("save", object())
    (fact,) = reporting.facts
    assert isinstance(fact, JobCheckpointed)
    assert reporting.job.control.next_checkpoint > time.monotonic() + 0.5 * fact.seconds / 1e-9


async def test_after_a_checkpoint_that_cannot_be_stored_another_is_wanted(reporting: Reporting):
    wanted = reporting.job.control.next_checkpoint
    reporting.store.answers["save_checkpoint"] = _UNAVAILABLE
    await reporting.report("save", object())
    assert wanted < reporting.job.control.next_checkpoint < math.inf
    assert reporting.facts == [StoreFailed("save_checkpoint", _UNAVAILABLE)]


async def test_the_outcome_comes_after_everything_else(reporting: Reporting):
    def run() -> None:
        reporting.sink.publish(_STARTED)
        reporting.sink.save(object())
        reporting.sink.leave(result)

    result = make_result()
    await asyncio.to_thread(run)
    assert await reporting.sink.outcome is result
    assert reporting.events == [_STARTED]
    await reporting.storing.wait()
    assert reporting.store.calls == ["append", "save_checkpoint"]


async def test_what_an_abandoned_run_reports_late_reaches_nobody(reporting: Reporting):
    reporting.job.end = Drained()
    reporting.job.log.close(reporting.job.end.error)
    reporting.sink.outcome.cancel()
    await reporting.report("publish", _STARTED)
    await reporting.report("shrunk", None)
    await reporting.report("shrunk", _REDUCED)
    await reporting.report("leave", Requeued(None))
    assert reporting.events == []
    assert reporting.facts == []
    # Until the lease ends with the server, what is stored is still right for the next run.
    assert reporting.store.calls == ["append"]


@pytest.mark.parametrize("error", [_UNAVAILABLE, ZeroDivisionError(), MemoryError()])
async def test_a_checkpoint_that_cannot_be_stored_is_not_the_last_one(reporting: Reporting, error: Exception):
    reporting.job.control.next_checkpoint = math.inf
    reporting.store.answers["save_checkpoint"] = error
    await reporting.report("save", object())
    assert reporting.job.control.next_checkpoint < math.inf


async def test_a_smaller_size_whose_storing_fails_in_an_unexpected_way_does_not_end_the_run(reporting: Reporting):
    reporting.store.answers["append"] = ZeroDivisionError()
    await reporting.report("shrunk", _REDUCED)
    assert reporting.events == [_REDUCED]
