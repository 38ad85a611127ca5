"""The metrics of a real server, and of facts."""

import asyncio
import dataclasses
import datetime
import socket
import sys
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from nst.v1 import style_transfer_pb2 as pb
from nst_service import tokens
from nst_service.addresses import AddressError
from nst_service.config import ServerConfig
from nst_service.jobs.errors import QueueFullError
from nst_service.jobs.gauges import DeviceGauges, ServerGauges
from nst_service.jobs.job import Ended, Job, RequeueCause, Work
from nst_service.jobs.observer import (
    DeviceReady,
    DeviceRemoved,
    JobAccepted,
    JobCheckpointed,
    JobEnded,
    JobRefused,
    JobRequeued,
    JobStarted,
    StoreCalled,
)
from nst_service.lifecycle import JobState
from nst_service.reloaded import SettingError
from nst_service.rpc.status import REFUSALS_OF_CALLS, reason_of
from nst_service.server import Server
from nst_service.store.errors import StoreUnavailableError
from nst_service.telemetry import catalogue
from nst_service.telemetry.metrics import ServerMetrics
from nst_service.telemetry.metrics_server import serving_metrics
from prometheus_client.parser import text_string_to_metric_families

from tests.jobs.builders import make_job
from tests.telemetry.conftest import Clock
from tests.telemetry.serving import Service, refused, serving, until

_ENDLESS = 5000
_DOCUMENTED = {metric.name: metric for _, metrics in catalogue.GROUPS for metric in metrics}
_ADDRESS = "127.0.0.1:0"

Values = Callable[..., float]


@pytest.fixture
def metrics(clock: Clock) -> ServerMetrics:
    return ServerMetrics(reason_of, REFUSALS_OF_CALLS, clock=clock)


def value(metrics: ServerMetrics, metric: catalogue.Metric, suffix: str = "", **labels: str) -> float | None:
    """Return the value that a scrape has; None if it has none."""
    list(metrics.registry.collect())
    return metrics.registry.get_sample_value(metric.name + suffix, labels)


async def scraped(service: Service) -> dict[str, Any]:
    """Return the families of a scrape by the names that they have in the catalogue."""
    port = service.server.metrics_port
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode())
    families = text_string_to_metric_families(text)
    return {f"{family.name}_total" if family.type == "counter" else family.name: family for family in families}


@pytest.mark.usefixtures("quick_start")
class TestServer:
    async def test_a_scrape_has_what_is_documented_and_nothing_else(self, request_: pb.StylizeRequest, tmp_path: Path):
        token, path = tokens.make_token(), tmp_path / "tokens.toml"
        path.write_text(tokens.format_entry(token, "ann", {}))
        header = [("authorization", f"Bearer {token}")]
        async with serving(
            metrics_address=_ADDRESS, metrics_owners=True, tokens=str(path), checkpoint_seconds=0.0
        ) as service:
            await refused(service.stub.Stylize(request_, metadata=header))
            families = await scraped(service)
        ours = {name: family for name, family in families.items() if name.startswith("nst_")}
        # Certificates, failed jobs and errors of the store are not there.
        missing = _DOCUMENTED.keys() - ours.keys()
        assert missing == set()
        assert ours.keys() - _DOCUMENTED.keys() == set()
        for name, family in ours.items():
            metric = _DOCUMENTED[name]
            assert (family.type, family.documentation) == (metric.kind.value, metric.meaning)
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert labels <= set(metric.labels)
        assert any(name.startswith("process_") for name in families)

    async def test_a_job_is_counted_with_its_work(self, request_: pb.StylizeRequest):
        async with serving(metrics_address=_ADDRESS) as service:
            call = service.stub.Stylize(request_)
            size = (await until(call, "result_header")).result_header.size_bytes
            await refused(call)
            registry = service.server._metrics.registry
            list(registry.collect())
            of = registry.get_sample_value
            assert of("nst_jobs_accepted_total") == 1
            assert of("nst_jobs_ended_total", {"state": "succeeded", "stop_reason": "iterations"}) == 1
            assert of("nst_iterations_total", {"device": "cpu"}) == 5
            assert of("nst_megapixel_iterations_total", {"device": "cpu"}) == pytest.approx(5 * 48 * 37 / 1e6)
            assert of("nst_device_busy_seconds_total", {"device": "cpu"}) > 0
            assert of("nst_result_bytes_total") == size
            assert of("nst_job_stage_seconds_sum", {"stage": "decode"}) > 0
            for stage in ("decode", "targets", "optimize", "encode"):
                assert of("nst_job_stage_seconds_count", {"stage": stage}) == 1
            assert of("nst_job_queue_seconds_count") == of("nst_job_seconds_count", {"state": "succeeded"}) == 1
            method = "nst.v1.StyleTransferService/Stylize"
            assert of("nst_rpcs_total", {"method": method, "code": "OK"}) == 1
            assert of("nst_rpcs_in_flight", {"method": method}) == 0

    async def test_the_present_state_is_that_of_the_server(self, request_: pb.StylizeRequest):
        request_.options.iterations = _ENDLESS
        async with serving(metrics_address=_ADDRESS, max_running=1, max_queued=1) as service:
            calls = [service.stub.Stylize(request_)]
            await until(calls[0], "progress")
            calls.append(service.stub.Stylize(request_))
            await until(calls[1], "queued")
            assert await refused(service.stub.Stylize(request_)) is grpc.StatusCode.RESOURCE_EXHAUSTED
            families = await scraped(service)

            def of(name: str, **labels: str) -> float:
                (found,) = [sample.value for sample in families[name].samples if sample.labels == labels]
                return found

            assert of("nst_serving") == 1
            assert (of("nst_jobs", state="running"), of("nst_jobs", state="queued")) == (1, 1)
            assert (of("nst_queue_length"), of("nst_queue_limit"), of("nst_followers")) == (1, 1, 2)
            assert of("nst_queue_oldest_seconds") > 0
            assert of("nst_checkpoint_age_seconds") > 0
            assert (of("nst_device_up", device="cpu"), of("nst_device_jobs", device="cpu")) == (1, 1)
            assert of("nst_device_memory_bytes", device="cpu", kind="planned") > 0
            assert of("nst_refusals_total", reason="QUEUE_FULL") == 1
            assert of("nst_rpcs_in_flight", method="nst.v1.StyleTransferService/Stylize") == 2
            # The first scrape counts the work of a job that still runs, and the next one counts on.
            before = of("nst_iterations_total", device="cpu")
            assert before > 0
            for call in calls:
                call.cancel()
            while service.server.scheduler.views.running_jobs:
                await asyncio.sleep(0.01)
            families = await scraped(service)
            assert of("nst_iterations_total", device="cpu") >= before

    async def test_owners_are_named_only_if_the_operator_asks_for_it(self, request_: pb.StylizeRequest, tmp_path: Path):
        token, path = tokens.make_token(), tmp_path / "tokens.toml"
        path.write_text(tokens.format_entry(token, "ann", {}))
        for has_owners in (False, True):
            async with serving(metrics_address=_ADDRESS, metrics_owners=has_owners, tokens=str(path)) as service:
                await refused(service.stub.Stylize(request_, metadata=[("authorization", f"Bearer {token}")]))
                families = await scraped(service)
            named = {
                name
                for name, family in families.items()
                for sample in family.samples
                if "ann" in sample.labels.values()
            }
            owners = {metric.name for topic, metrics in catalogue.GROUPS if topic == "Owners" for metric in metrics}
            assert named == (owners if has_owners else set())

    async def test_metrics_that_fail_cost_no_job_and_no_call(
        self, request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        def fail(*_: Any) -> None:
            raise ZeroDivisionError

        for method in ("notify", "begin_call", "end_call", "_refresh"):
            monkeypatch.setattr(ServerMetrics, method, fail)
        async with serving(metrics_address=_ADDRESS) as service:
            call = service.stub.Stylize(request_)
            assert (await until(call, "completed")).completed.iterations == 5
            with pytest.raises(OSError, match="500"):
                await scraped(service)
            await service.stub.GetServerInfo(pb.GetServerInfoRequest())
        assert sum("an observer" in record.message for record in caplog.records) == 2

    async def test_a_scraper_that_does_not_read_holds_up_nothing(self, request_: pb.StylizeRequest):
        async with serving(metrics_address=_ADDRESS) as service:
            address = ("127.0.0.1", service.server.metrics_port)
            hanging = [socket.create_connection(address) for _ in range(20)]
            for connection in hanging[:10]:
                connection.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await refused(service.stub.Stylize(request_)) is grpc.StatusCode.OK
            assert await scraped(service)
            await service.drain()
            for connection in hanging:
                connection.close()

    async def test_an_address_in_use_is_named(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(AddressError, match=f"127.0.0.1:{port}' for metrics: Address already in use"):
                async with serving(metrics_address=f"127.0.0.1:{port}"):
                    pass


@pytest.mark.usefixtures("quick_start")
def test_missing_libraries_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "nst_service.telemetry.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingError, match=r"metrics_address needs prometheus_client.*nst-stylize\[metrics\]"):
        Server(ServerConfig(address=_ADDRESS, metrics_address=_ADDRESS))


@pytest.mark.parametrize("address", ["unix:/tmp/x", "127.0.0.1", "127.0.0.1:65536"])
async def test_an_address_of_another_form_is_refused(metrics: ServerMetrics, address: str):
    with pytest.raises(AddressError, match="HOST:PORT"):
        async with serving_metrics(address, metrics.registry):
            pass


def started(metrics: ServerMetrics, device: str, **plan: Any) -> Job:
    job = make_job(**plan)
    metrics.notify(JobAccepted(job))
    metrics.notify(JobStarted(job, device))
    return job


def works(job: Job, **work: Any) -> None:
    job.run_state = dataclasses.replace(job.run_state, work=Work(**work))


def test_the_work_of_a_job_is_counted_on_the_device_that_did_it(metrics: ServerMetrics):
    job = started(metrics, "cuda:0")
    works(job, iterations=10, device_seconds=2.0)
    assert value(metrics, catalogue.ITERATIONS, device="cuda:0") == 10
    works(job, iterations=15, device_seconds=3.0)
    metrics.notify(JobRequeued(job, RequeueCause.DEVICE_LOST))
    metrics.notify(JobStarted(job, "cuda:1"))
    works(job, iterations=40, device_seconds=8.0)
    metrics.notify(JobEnded(job, Ended(JobState.SUCCEEDED)))
    assert value(metrics, catalogue.ITERATIONS, device="cuda:0") == 15
    assert value(metrics, catalogue.ITERATIONS, device="cuda:1") == 25
    assert value(metrics, catalogue.DEVICE_SECONDS, device="cuda:1") == 5.0
    assert value(metrics, catalogue.REQUEUED, cause="device_lost") == 1


def test_the_age_of_a_checkpoint_is_that_of_the_job_that_would_lose_most(metrics: ServerMetrics, clock: Clock):
    assert value(metrics, catalogue.CHECKPOINT_AGE) == 0
    old = started(metrics, "cpu")
    clock.now = 10
    new = started(metrics, "cpu")
    clock.now = 15
    assert value(metrics, catalogue.CHECKPOINT_AGE) == 15
    metrics.notify(JobCheckpointed(old, 0.1))
    assert value(metrics, catalogue.CHECKPOINT_AGE) == 5
    for job in (old, new):
        metrics.notify(JobEnded(job, Ended(JobState.SUCCEEDED)))
    assert value(metrics, catalogue.CHECKPOINT_AGE) == 0


def test_the_store_is_down_during_an_outage(metrics: ServerMetrics, clock: Clock):
    metrics.notify(StoreCalled("heartbeat", 0.1, StoreUnavailableError("the store does not answer")))
    assert value(metrics, catalogue.STORE_UP) == 0
    assert value(metrics, catalogue.STORE_ERRORS, operation="heartbeat", error="StoreUnavailableError") == 1
    clock.now = 10
    metrics.notify(StoreCalled("heartbeat", 0.1))
    assert value(metrics, catalogue.STORE_UP) == 1


def test_a_device_that_has_left_is_not_shown_any_more(metrics: ServerMetrics):
    def gauges(*names: str) -> ServerGauges:
        devices = tuple(
            DeviceGauges(name=name, is_up=True, jobs=0, available_bytes=1, planned_bytes=0, used_bytes=None)
            for name in names
        )
        return ServerGauges(
            is_serving=True,
            is_draining=False,
            waiting=0,
            queue_length=0,
            oldest_waiting_seconds=0.0,
            followers=0,
            devices=devices,
        )

    metrics.watch(lambda: gauges("cuda:0", "cuda:1"))
    assert value(metrics, catalogue.DEVICE_UP, device="cuda:1") == 1
    metrics.watch(lambda: gauges("cuda:0"))
    assert value(metrics, catalogue.DEVICE_UP, device="cuda:1") is None
    assert value(metrics, catalogue.DEVICE_UP, device="cuda:0") == 1


def test_devices_that_come_and_go_do_not_add_up(metrics: ServerMetrics):
    for number in range(100):
        device = f"ray-{number}"
        metrics.notify(DeviceReady(device))
        assert value(metrics, catalogue.DEVICE_LOSSES, device=device) == 0
        job = started(metrics, device)
        works(job, iterations=10)
        metrics.notify(JobEnded(job, Ended(JobState.SUCCEEDED)))
        assert value(metrics, catalogue.ITERATIONS, device=device) == 10
        metrics.notify(DeviceRemoved(device))
        assert value(metrics, catalogue.ITERATIONS, device=device) is None
    assert value(metrics, catalogue.DEVICE_REMOVALS) == 100


def test_the_number_of_owners_is_bounded():
    metrics = ServerMetrics(reason_of, has_owners=True)
    for number in range(1100):
        job = make_job(owner=f"owner-{number}")
        metrics.notify(JobEnded(job, Ended(JobState.CANCELLED)))
    assert value(metrics, catalogue.OWNER_JOBS, owner="other", state="cancelled") == 100
    assert value(metrics, catalogue.OWNER_JOBS, owner="owner-7", state="cancelled") == 1


def test_a_reason_that_no_table_has_is_internal(metrics: ServerMetrics):
    metrics.notify(JobRefused("ann", QueueFullError("16 jobs", 3.0)))
    metrics.notify(JobRefused("ann", ZeroDivisionError(f"{uuid.uuid4()}")))
    assert value(metrics, catalogue.REFUSALS, reason="QUEUE_FULL") == 1
    assert value(metrics, catalogue.REFUSALS, reason="INTERNAL") == 1


def test_the_first_certificate_to_expire_is_told_even_after_it_was_replaced(tmp_path: Path):
    path, now = tmp_path / "certificate.pem", datetime.datetime.now(datetime.UTC)

    def issue(days: int) -> datetime.datetime:
        expires_at = (now + datetime.timedelta(days=days)).replace(microsecond=0)
        authority = trustme.CA()
        issued = authority.issue_cert("localhost", not_after=expires_at)
        path.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems) + authority.cert_pem.bytes())
        return expires_at

    files = {"tls_certificate": path, "tls_client_ca": tmp_path / "missing.pem"}
    metrics = ServerMetrics(reason_of, certificates=files)
    for days in (3, 300):
        expires_at = issue(days)
        assert value(metrics, catalogue.CERTIFICATE, file="tls_certificate") == expires_at.timestamp()
    assert value(metrics, catalogue.CERTIFICATE, file="tls_client_ca") is None


def test_every_label_is_explained_and_every_name_follows_the_conventions():
    explained = {label.name for label in catalogue.LABELS}
    for metric in _DOCUMENTED.values():
        assert set(metric.labels) <= explained
        assert metric.name.endswith("_total") == (metric.kind is catalogue.Kind.COUNTER)
        assert bool(metric.buckets) == (metric.kind is catalogue.Kind.HISTOGRAM)
        for unit in ("seconds", "bytes"):
            assert (unit in metric.name) == metric.unit.startswith(unit), metric.name
        if metric.buckets:
            assert list(metric.buckets) == sorted(set(metric.buckets))


def test_the_buckets_of_jobs_reach_from_a_tenth_of_a_second_to_an_hour():
    assert (catalogue.JOB_SECONDS[0], catalogue.JOB_SECONDS[-1]) == (0.1, 3600.0)
