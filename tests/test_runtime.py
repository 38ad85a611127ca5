"""The composition root: a scheduler from the settings, for hosts with and without gRPC."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from nst_service import runtime as runtime_module
from nst_service.config import ServerConfig
from nst_service.engine.network.weights import Weights
from nst_service.engine.options import TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest
from nst_service.jobs.events import Completed
from nst_service.jobs.job import Job
from nst_service.jobs.observer import DrainBegan, DrainEnded, Fact, JobAccepted, JobEnded, StoreCalled, StoreMeasured
from nst_service.jobs.worker import DeviceWorker
from nst_service.reloaded import SettingError
from nst_service.runtime import build_runtime, open_store

from tests.jobs.builders import PlainCodec, submit


class Facts(list[Fact]):
    def notify(self, fact: Fact) -> None:
        self.append(fact)


@pytest.fixture(autouse=True)
def _quick_start(monkeypatch: pytest.MonkeyPatch, weights: Weights) -> None:
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: setattr(worker, "memory", 2**30))
    monkeypatch.setattr(runtime_module, "load_weights", lambda *_: weights)


def test_it_needs_no_grpc():
    program = "import sys, nst_service.runtime; sys.exit('grpc' in sys.modules or 'google.protobuf' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_jobs_run_without_a_server(content_png: bytes, style_png: bytes):
    facts = Facts()
    scheduler = build_runtime(ServerConfig(), lambda _: PlainCodec(), facts).scheduler
    await scheduler.start()
    request = TransferRequest(
        content=content_png,
        styles=(StyleInput(data=style_png),),
        options=TransferOptions(image_size=48, scales=1, iterations=3),
    )
    job = await submit(scheduler, request)
    assert isinstance(job, Job)
    async with contextlib.aclosing(scheduler.follow(job.id)) as events:
        *_, last = [logged.event async for logged in events]
    await scheduler.drain(0.0)
    await scheduler.close()
    assert isinstance(last, Completed)
    assert last.iterations == 3
    of_jobs = [fact for fact in facts if not isinstance(fact, StoreCalled | StoreMeasured | DrainBegan | DrainEnded)]
    assert isinstance(of_jobs[0], JobAccepted)
    assert isinstance(of_jobs[-1], JobEnded)


async def test_settings_reach_the_scheduler():
    config = ServerConfig(max_queued=3, max_running=2, max_pending_bytes=7, max_styles=5, reattach_seconds=11.0)
    runtime = build_runtime(config, lambda _: PlainCodec())
    scheduler = runtime.scheduler
    assert (scheduler.queue_limits.max_queued, scheduler.queue_limits.max_running) == (3, 2)
    assert scheduler.queue_limits.max_pending_bytes == 7
    assert scheduler.limits.max_styles == 5
    assert scheduler.durability.reattach_seconds == 11.0
    assert scheduler.durability.is_alone
    assert scheduler.views.devices == [str(runtime.model.device)]
    await scheduler.drain(0.0)
    await scheduler.close()


def test_a_store_that_cannot_be_opened_is_an_error_of_its_setting(tmp_path: Path):
    with pytest.raises(SettingError):
        open_store(ServerConfig(data_dir=str(tmp_path), database="mysql://host/name"))


def test_a_cluster_needs_ray(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "nst_service.ray_devices", raising=False)
    with pytest.raises(SettingError, match=r"ray is set, but ray is not installed: pip install 'nst-stylize\[ray\]'"):
        build_runtime(ServerConfig(ray="local"), lambda _: PlainCodec())
