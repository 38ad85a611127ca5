"""Each alert fires in a real Prometheus when its fault is made. The times of the rules are scaled down."""

import asyncio
import contextlib
import datetime
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from nst.v1 import style_transfer_pb2 as pb
from nst_service.config import ServerConfig
from nst_service.jobs import run as run_module
from nst_service.jobs.device import DeviceUnavailableError
from nst_service.server import Server
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.store import Store

from tests.deploy.prometheus import DEPLOY, needs_prometheus, scraping
from tests.jobs.builders import FakeRemoteDevice
from tests.telemetry.serving import HANG_SECONDS, serving, until

pytestmark = [needs_prometheus, pytest.mark.usefixtures("quick_start")]

_RULES = DEPLOY / "prometheus" / "alerts.yaml"
_SCALE = 150
"""The factor by which the times of the rules are shorter here."""
_UNITS = {"s": 1, "m": 60, "h": 3600}
_ENDLESS = 5000
_SETTINGS = {"metrics_address": "127.0.0.1:0", "max_running": 1}


def scaled_rules() -> dict[str, Any]:
    """Return the rules with shorter times, at least two seconds each."""

    def shorter(match: re.Match[str]) -> str:
        return f"{max(2, round(int(match[1]) * _UNITS[match[2]] / _SCALE))}s"

    rules: dict[str, Any] = yaml.safe_load(_RULES.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["expr"] = re.sub(r"(?<=\[)(\d+)([smh])(?=\])", shorter, rule["expr"])
        rule["for"] = re.sub(r"([1-9]\d*)([smh])", shorter, rule["for"])
        rule["expr"] = rule["expr"].replace("> 900", f"> {900 // _SCALE}")
    return rules


@pytest.fixture(autouse=True)
async def _no_hanging() -> AsyncIterator[None]:
    async with asyncio.timeout(HANG_SECONDS):
        yield


def test_promtool_accepts_the_rules():
    subprocess.run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", _RULES], check=True)


def test_promtool_confirms_the_times_of_the_rules():
    subprocess.run(["promtool", "test", "rules", _RULES.with_name("alerts_test.yaml")], check=True)


def test_every_alert_has_a_test_of_its_times_and_is_described():
    names = {rule["alert"] for rule in yaml.safe_load(_RULES.read_text())["groups"][0]["rules"]}
    timed = yaml.safe_load(_RULES.with_name("alerts_test.yaml").read_text())["tests"]
    expected = {test["alertname"] for each in timed for test in each["alert_rule_test"] if test["exp_alerts"]}
    assert expected == names
    documented = (DEPLOY.parent / "docs" / "running.md").read_text()
    assert {name for name in names if f"`{name}`" not in documented} == set()


async def test_a_server_without_faults_fires_no_alert(request_: pb.StylizeRequest, tmp_path: Path):
    async with (
        serving(**_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        for _ in range(3):
            await until(service.stub.Stylize(request_), "completed")
        while not await prometheus.query("nst_jobs_ended_total"):
            await asyncio.sleep(0.2)
        await asyncio.sleep(5)
        assert await prometheus.firing() == {}


async def test_a_queue_that_grows_fires_an_alert(request_: pb.StylizeRequest, tmp_path: Path):
    request_.options.iterations = _ENDLESS
    async with (
        serving(max_queued=2, **_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        calls = []
        for _ in range(3):
            calls.append(service.stub.Stylize(request_))
            await until(calls[-1], "accepted")
        assert (await prometheus.until_firing("NstQueueGrows"))["severity"] == "warning"
        for call in calls:
            call.cancel()


async def test_a_store_that_is_away_fires_an_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any) -> None:
        raise StoreUnavailableError("the store does not answer")

    async with (
        serving(**_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Store, "heartbeat", fail)
            assert (await prometheus.until_firing("NstStoreAway"))["severity"] == "critical"
        while await prometheus.firing():
            await asyncio.sleep(0.2)


async def test_a_device_that_is_lost_fires_an_alert(tmp_path: Path):
    device = FakeRemoteDevice("cuda:7")
    async with (
        serving(**_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        service.server.scheduler.add_device(device)
        while not await prometheus.query('nst_device_up{device="cuda:7"} == 1'):
            await asyncio.sleep(0.2)
        assert "NstDeviceLost" not in await prometheus.firing()
        device.refusals = [DeviceUnavailableError("it has fallen off the bus")] * 1000
        device.lose()
        assert (await prometheus.until_firing("NstDeviceLost"))["severity"] == "critical"


async def test_a_checkpoint_that_is_old_fires_an_alert(request_: pb.StylizeRequest, tmp_path: Path):
    request_.options.iterations = _ENDLESS
    async with (
        serving(checkpoint_seconds=3600.0, **_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        call = service.stub.Stylize(request_)
        await until(call, "progress")
        await prometheus.until_firing("NstCheckpointOld")
        call.cancel()


async def test_a_certificate_that_expires_soon_fires_an_alert(tmp_path: Path):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=13)
    issued = trustme.CA().issue_cert("localhost", not_after=soon)
    files = {name: tmp_path / f"{name}.pem" for name in ("tls_certificate", "tls_key")}
    files["tls_certificate"].write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    files["tls_key"].write_bytes(issued.private_key_pem.bytes())
    settings = {name: str(path) for name, path in files.items()}
    server = Server(ServerConfig(address="127.0.0.1:0", grace=0.0, **_SETTINGS, **settings))
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    running = asyncio.create_task(server.run(stop, listening.set_result))
    await listening
    async with scraping(tmp_path, server.metrics_port, scaled_rules()) as prometheus:
        labels = await prometheus.until_firing("NstCertificateExpires")
        assert (labels["file"], labels["severity"]) == ("tls_certificate", "warning")
    stop.set()
    await running


@contextlib.contextmanager
def hanging_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The second step of every job hangs until the context ends."""
    transfer, released = run_module.transfer, threading.Event()

    def hang(*arguments: Any) -> Any:
        steps = transfer(*arguments)
        yield next(steps)
        yield next(steps)
        released.wait()
        yield from steps

    monkeypatch.setattr(run_module, "transfer", hang)
    try:
        yield
    finally:
        released.set()


async def test_a_device_that_hangs_fires_an_alert(
    request_: pb.StylizeRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with (
        serving(**_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        with hanging_steps(monkeypatch):
            call = service.stub.Stylize(request_)
            await until(call, "started")
            labels = await prometheus.until_firing("NstNoProgress")
            assert labels["device"] == "cpu"
        await until(call, "completed")


async def test_a_server_that_is_gone_fires_an_alert(tmp_path: Path):
    async with (
        serving(**_SETTINGS) as service,
        scraping(tmp_path, service.server.metrics_port, scaled_rules()) as prometheus,
    ):
        while not await prometheus.query("nst_serving == 1"):
            await asyncio.sleep(0.2)
        await service.drain()
        assert (await prometheus.until_firing("NstServerDown"))["job"] == "nst"
