"""The log of jobs, of a real server and with facts."""

import asyncio
import dataclasses
import logging
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service import tokens
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs.errors import JobFailedError, QueueFullError
from nst_service.jobs.observer import DrainBegan, DrainEnded, JobRefused, RecoveryFailed, StoreCalled
from nst_service.rpc import errors as rpc_errors
from nst_service.rpc.status import REFUSALS_OF_CALLS, reason_of
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.store import Store
from nst_service.telemetry import outage as outage_module
from nst_service.telemetry.calls import CallEnded
from nst_service.telemetry.job_log import JobLog
from nst_service.telemetry.log_output import set_up_logging

from tests.telemetry.conftest import Clock
from tests.telemetry.serving import refused, serving, until

_ENDLESS = 5000
_TRACE = "0af7651916cd43dd8448eb211c80319c"
_TRACEPARENT = ("traceparent", f"00-{_TRACE}-b7ad6b7169203331-01")
_AWAY = StoreUnavailableError("the store does not answer", "/srv/nst: no such host")


@pytest.fixture
def log(clock: Clock, caplog: pytest.LogCaptureFixture) -> JobLog:
    caplog.set_level("INFO", "nst_service")
    return JobLog(reason_of, REFUSALS_OF_CALLS, clock)


def said(caplog: pytest.LogCaptureFixture, message: str) -> list[Any]:
    return [record for record in caplog.records if record.getMessage().startswith(message)]


@pytest.mark.usefixtures("quick_start")
class TestServer:
    async def test_a_job_has_one_line_at_its_end_with_all_that_it_was(
        self, request_: pb.StylizeRequest, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level("INFO", "nst_service")
        request_.request_id = str(uuid.uuid4())
        async with serving() as service:
            call = service.stub.Stylize(request_, metadata=[_TRACEPARENT])
            job_id = (await until(call, "accepted")).accepted.job_id
            header = (await until(call, "result_header")).result_header
            assert await refused(call) is grpc.StatusCode.OK
        (record,) = said(caplog, "job ended")
        expected = {
            "job": job_id,
            "request": request_.request_id,
            "trace": _TRACE,
            "state": "succeeded",
            "stop_reason": "iterations",
            "width": 48,
            "height": 37,
            "earlier_runs": 0,
            "device": "cpu",
            "iterations": 5,
            "bytes": header.size_bytes,
        }
        assert {name: getattr(record, name) for name in expected} == expected
        for stage in ("queued_seconds", "decoding_seconds", "running_seconds", "encoding_seconds"):
            assert getattr(record, stage) >= 0
        assert record.levelno == logging.INFO

    async def test_the_owner_of_a_token_is_named_and_a_wrong_token_is_a_refusal(
        self, request_: pb.StylizeRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level("INFO", "nst_service")
        token, path = tokens.make_token(), tmp_path / "tokens.toml"
        path.write_text(tokens.format_entry(token, "ann", {"iterations": 10}))
        async with serving(tokens=str(path)) as service:
            header = [("authorization", f"Bearer {token}")]
            assert await refused(service.stub.Stylize(request_, metadata=header)) is grpc.StatusCode.OK
            assert await refused(service.stub.Stylize(request_)) is grpc.StatusCode.UNAUTHENTICATED
            request_.options.iterations = 11
            quota = await refused(service.stub.Stylize(request_, metadata=header))
            assert quota is grpc.StatusCode.RESOURCE_EXHAUSTED
        (ended,) = said(caplog, "job ended")
        assert ended.owner == "ann"
        unknown, exceeded = said(caplog, "request refused")
        assert (unknown.reason, unknown.method) == ("UNAUTHENTICATED", "nst.v1.StyleTransferService/Stylize")
        assert (exceeded.reason, exceeded.owner) == ("QUOTA_EXCEEDED", "ann")

    async def test_a_cancelled_job_tells_how_far_it_came(
        self, request_: pb.StylizeRequest, caplog: pytest.LogCaptureFixture
    ):
        caplog.set_level("INFO", "nst_service")
        request_.options.iterations = _ENDLESS
        async with serving() as service:
            call = service.stub.Stylize(request_)
            job_id = (await until(call, "accepted")).accepted.job_id
            await until(call, "progress")
            await service.stub.CancelJob(pb.CancelJobRequest(job_id=job_id))
            completed = (await until(call, "completed")).completed
        (record,) = said(caplog, "job ended")
        assert (record.state, record.stop_reason) == ("cancelled", "cancelled")
        assert record.iterations == completed.iterations

    async def test_a_drain_tells_what_is_kept(self, request_: pb.StylizeRequest, caplog: pytest.LogCaptureFixture):
        caplog.set_level("INFO", "nst_service")
        request_.options.iterations = _ENDLESS
        request_.disconnect_policy = pb.DISCONNECT_POLICY_KEEP_RUNNING
        async with serving(max_running=1) as service:
            calls = []
            for _ in range(3):
                request_.request_id = str(uuid.uuid4())
                calls.append(service.stub.Stylize(request_))
                await until(calls[-1], "accepted")
            request_.request_id, request_.disconnect_policy = "", pb.DISCONNECT_POLICY_UNSPECIFIED
            calls.append(service.stub.Stylize(request_))
            await until(calls[-1], "accepted")
            await until(calls[0], "progress")
            await service.drain()
        (begin,) = said(caplog, "drain begins")
        assert (begin.running, begin.waiting, begin.grace_seconds) == (1, 3, 0.0)
        (end,) = said(caplog, "drain ended")
        assert (end.finished, end.kept, end.cancelled, end.failed, end.is_idle) == (0, 3, 1, 0, True)
        assert sorted(record.state for record in said(caplog, "job ended")) == ["cancelled", *["drained"] * 3]

    async def test_an_outage_of_the_store_is_two_lines(
        self, request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ):
        monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", 0.02)
        monkeypatch.setattr(outage_module, "_SETTLED_SECONDS", 0.2)
        output = set_up_logging("text", "info", "warning")
        away, failures = asyncio.Event(), 0
        request_.options.iterations = _ENDLESS

        def failing(name: str) -> None:
            real = getattr(Store, name)

            def fail(*arguments: Any, **keywords: Any) -> Any:
                nonlocal failures
                if away.is_set():
                    failures += 1
                    raise _AWAY
                return real(*arguments, **keywords)

            fail.__name__ = name
            monkeypatch.setattr(Store, name, fail)

        for name in ("heartbeat", "save_checkpoint", "submit", "jobs"):
            failing(name)
        async with serving(checkpoint_seconds=0.0) as service:
            call = service.stub.Stylize(request_)
            await until(call, "progress")
            away.set()
            while failures < 50:
                assert await refused(service.stub.ListJobs(pb.ListJobsRequest())) is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.02)
            away.clear()
            await service.stub.ListJobs(pb.ListJobsRequest())
            while service.server._log._outage.is_ongoing:
                await asyncio.sleep(0.02)
            call.cancel()
            while service.server.scheduler.views.running_jobs:
                await asyncio.sleep(0.02)
        output.close()
        lines = [line for line in capfd.readouterr().err.splitlines() if " ERROR " in line or " WARNING " in line]
        assert [line.partition("job_log: ")[2].partition(" ")[0:1] for line in lines] == [("the",), ("the",)]
        assert "the store is away: the store does not answer: /srv/nst: no such host" in lines[0]
        assert "the store is back seconds=" in lines[1]
        assert int(lines[1].rpartition("=")[2]) >= 50


def test_refusals_of_a_kind_are_limited_and_the_rest_is_counted(
    log: JobLog, clock: Clock, caplog: pytest.LogCaptureFixture
):
    for _ in range(500):
        log.notify(JobRefused("ann", QueueFullError("16 jobs", 3.0)))
    assert len(said(caplog, "request refused")) == 10
    clock.now = 61
    # Any fact will do, such as the heartbeat of every second.
    log.notify(StoreCalled("heartbeat", 0.001))
    (further,) = said(caplog, "further requests refused")
    assert (further.reason, further.count) == ("QUEUE_FULL", 490)


def test_an_unexpected_error_is_a_refusal_with_a_reason(log: JobLog, caplog: pytest.LogCaptureFixture):
    log.notify(JobRefused("", ZeroDivisionError("division by zero")))
    (record,) = said(caplog, "request refused")
    assert record.reason == "INTERNAL"


def test_a_job_that_cannot_go_on_has_a_line(log: JobLog, caplog: pytest.LogCaptureFixture):
    log.notify(RecoveryFailed("one", JobFailedError("KEEPS_CRASHING", "the server has died repeatedly")))
    (record,) = said(caplog, "job ended")
    assert (record.job, record.state, record.reason, record.levelname) == ("one", "failed", "KEEPS_CRASHING", "WARNING")


def test_a_drain_without_jobs_says_so(log: JobLog, caplog: pytest.LogCaptureFixture):
    log.notify(DrainBegan(0, 0, 30.0))
    log.notify(DrainEnded(is_idle=True))
    assert said(caplog, "drain ended")[0].kept == 0


def test_every_error_of_calls_is_a_refusal_of_calls():
    instances = [
        rpc_errors.RequestTooLargeError(2, 1),
        rpc_errors.MalformedRequestError(),
        rpc_errors.UnauthenticatedError("no token"),
        rpc_errors.IncompleteRequestError("within 2 s"),
        rpc_errors.TooManyCallsError(3),
    ]
    assert {reason_of(error) for error in instances} | {"QUEUE_FULL"} == REFUSALS_OF_CALLS
    kinds = {kind for kind in vars(rpc_errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds == {type(error) for error in instances}


async def test_a_refusal_that_the_scheduler_has_told_is_not_told_again_at_the_end_of_its_call(
    log: JobLog, caplog: pytest.LogCaptureFixture
):
    call = CallEnded(
        method="nst.v1.StyleTransferService/Stylize",
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        reason="QUEUE_FULL",
        message="the queue is full",
        seconds=0.1,
    )
    log.end_call(dataclasses.replace(call, is_refusal_known=True))
    assert said(caplog, "request refused") == []
    log.end_call(call)
    assert said(caplog, "request refused")[0].reason == "QUEUE_FULL"


@pytest.mark.usefixtures("quick_start")
async def test_a_full_queue_is_one_refusal(request_: pb.StylizeRequest, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "nst_service")
    request_.options.iterations = _ENDLESS
    async with serving(max_queued=0) as service:
        call = service.stub.Stylize(request_)
        await until(call, "progress")
        assert await refused(service.stub.Stylize(request_)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
    assert [record.reason for record in said(caplog, "request refused")] == ["QUEUE_FULL"]
