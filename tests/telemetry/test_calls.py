"""The end of every call is observed, however it ends."""

import asyncio
import dataclasses

import grpc
import pytest
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_service.telemetry.calls import CallEnded, trace_id_of
from nst_service.telemetry.job_log import JobLog

from tests.telemetry.serving import Service, refused, serving, until

_SERVICE = "nst.v1.StyleTransferService"
_TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[CallEnded]:
    calls: list[CallEnded] = []
    monkeypatch.setattr(JobLog, "end_call", lambda _, call: calls.append(call))
    return calls


async def ended(calls: list[CallEnded], method: str) -> CallEnded:
    while not (found := [call for call in calls if call.method.endswith(method)]):
        await asyncio.sleep(0.01)
    return found[-1]


@pytest.mark.usefixtures("quick_start")
async def test_every_call_has_one_end_with_its_method_and_code(request_: pb.StylizeRequest, calls: list[CallEnded]):
    async with serving() as service:
        calls.clear()
        await refused(service.stub.Stylize(request_))
        await service.stub.GetServerInfo(pb.GetServerInfoRequest())
        await refused(service.stub.GetJob(pb.GetJobRequest(job_id="no-such-job")))
        await refused(service.stub.Stylize(pb.StylizeRequest(content=pb.Picture(data=b"text"))))
        await service.health.Check(health_pb2.HealthCheckRequest())
        await refused(malformed(service))
        await refused(unknown(service))
    # The watch that waited for the server ends whenever its cancellation arrives.
    told = [(call.method, call.code, call.reason) for call in calls if not call.method.endswith("/Watch")]
    assert told == [
        (f"{_SERVICE}/Stylize", grpc.StatusCode.OK, ""),
        (f"{_SERVICE}/GetServerInfo", grpc.StatusCode.OK, ""),
        (f"{_SERVICE}/GetJob", grpc.StatusCode.NOT_FOUND, ""),
        (f"{_SERVICE}/Stylize", grpc.StatusCode.INVALID_ARGUMENT, ""),
        ("grpc.health.v1.Health/Check", grpc.StatusCode.OK, ""),
        (f"{_SERVICE}/GetJob", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
        ("unknown", grpc.StatusCode.UNIMPLEMENTED, ""),
    ]


def malformed(service: Service):
    return service.channel.unary_unary(f"/{_SERVICE}/GetJob")(b"\xff\xff\xff")


def unknown(service: Service):
    return service.channel.unary_unary(f"/{_SERVICE}/Anything")(b"")


@pytest.mark.usefixtures("quick_start")
async def test_a_call_that_its_client_leaves_is_cancelled(request_: pb.StylizeRequest, calls: list[CallEnded]):
    request_.options.iterations = 5000
    async with serving() as service:
        calls.clear()
        call = service.stub.Stylize(request_)
        await until(call, "progress")
        call.cancel()
        assert (await ended(calls, "Stylize")).code is grpc.StatusCode.CANCELLED


@pytest.mark.usefixtures("quick_start")
async def test_an_error_that_nobody_expects_is_internal(
    request_: pb.StylizeRequest, calls: list[CallEnded], monkeypatch: pytest.MonkeyPatch
):
    async with serving() as service:

        async def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        calls.clear()
        monkeypatch.setattr(service.server.scheduler, "submit", fail)
        await refused(service.stub.Stylize(request_))
    call = await ended(calls, "Stylize")
    assert dataclasses.replace(call, message="", seconds=0) == CallEnded(
        method=f"{_SERVICE}/Stylize", code=grpc.StatusCode.INTERNAL, reason="INTERNAL", message="", seconds=0
    )


@pytest.mark.parametrize(
    ("metadata", "trace"),
    [
        ([("traceparent", f"00-{_TRACE}-b7ad6b7169203331-01")], _TRACE),
        ([("traceparent", f"01-{_TRACE}-b7ad6b7169203331-01-more")], _TRACE),
        ([("traceparent", f"00-{'0' * 32}-b7ad6b7169203331-01")], ""),
        ([("traceparent", f"00-{_TRACE.upper()}-b7ad6b7169203331-01")], ""),
        ([("traceparent", "anything\nelse")], ""),
        ([("traceparent", f"00-{_TRACE}-b7ad6b7169203331-01")] * 2, ""),
        ([], ""),
    ],
)
def test_the_trace_is_that_of_a_well_formed_header(metadata: list[tuple[str, str]], trace: str):
    assert trace_id_of(metadata) == trace
