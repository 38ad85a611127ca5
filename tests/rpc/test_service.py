import asyncio
import contextlib
import hashlib
import io

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_service.config import ServerConfig
from nst_service.server import Server
from PIL import Image


@contextlib.asynccontextmanager
async def serving(**settings):
    server, stop, listening = Server(ServerConfig(address="127.0.0.1:0", **settings)), asyncio.Event(), asyncio.Future()
    task = asyncio.create_task(server.run(stop, listening.set_result))
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{await listening}") as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            watch.cancel()
            yield server, pb_grpc.StyleTransferServiceStub(channel)
    finally:
        stop.set()
        await task


async def status(call) -> tuple[grpc.StatusCode, list]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    decoded = rpc_status.from_call(caught.value)
    return caught.value.code(), list(decoded.details) if decoded else []


async def test_a_picture_comes_back_whole_after_its_events(request_: pb.StylizeRequest):
    async with serving() as (_, stub):
        events = [response.event async for response in stub.Stylize(request_)]
        info = await stub.GetServerInfo(pb.GetServerInfoRequest())
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "accepted"
    assert kinds[-1] == "completed"
    assert {"started", "progress", "preview", "result_header", "result_chunk"} <= set(kinds)
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    header = next(event.result_header for event in events if event.HasField("result_header"))
    data = b"".join(event.result_chunk.data for event in events)
    assert hashlib.sha256(data).hexdigest() == header.sha256
    assert Image.open(io.BytesIO(data)).size == (header.width, header.height) == (48, 37)
    assert events[-1].completed.stop_reason == pb.STOP_REASON_ITERATIONS
    assert len(events[-1].completed.terms) == 6
    assert info.default_options.iterations > 0
    assert info.weights.id == "caffe"


async def test_bad_input_names_its_fields_and_the_server_goes_on(request_: pb.StylizeRequest, one_pixel_png: bytes):
    bad: dict[str, pb.StylizeRequest] = {}
    for field, change in {
        "content": {"content": pb.Picture(data=b"text")},
        "init_picture": {"init_picture": pb.Picture(data=one_pixel_png[:40])},
        "options.optimizer": {"options": pb.TransferOptions(optimizer=99)},
        "options.iterations": {"options": pb.TransferOptions(iterations=0)},
        "options.tv_weight": {"options": pb.TransferOptions(tv_weight=float("nan"))},
    }.items():
        bad[field] = pb.StylizeRequest()
        bad[field].CopyFrom(request_)
        bad[field].MergeFrom(pb.StylizeRequest(**change))
    bad["styles"] = pb.StylizeRequest(content=request_.content)
    async with serving() as (_, stub):
        for field, request in bad.items():
            code, details = await status(stub.Stylize(request))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            invalid = error_details_pb2.BadRequest()
            assert details[0].Unpack(invalid)
            assert [violation.field for violation in invalid.field_violations] == [field]
        assert [event async for event in stub.Stylize(request_)][-1].event.HasField("completed")


async def test_a_request_over_the_limit_is_told_the_limit(request_: pb.StylizeRequest):
    request_.content.data += b"\0" * 4096
    async with serving(max_request_bytes=request_.ByteSize() - 1) as (_, stub):
        code, details = await status(stub.Stylize(request_))
    info = error_details_pb2.ErrorInfo()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details[0].Unpack(info)
    assert info.reason == "REQUEST_TOO_LARGE"


async def test_a_cancelled_job_still_sends_its_picture(request_: pb.StylizeRequest):
    request_.options.iterations = 5000
    async with serving() as (_, stub):
        job_id, last = "", None
        async for response in stub.Stylize(request_):
            last = response.event
            job_id = last.accepted.job_id or job_id
            if last.HasField("progress"):
                await stub.CancelJob(pb.CancelJobRequest(job_id=job_id))
        assert last.completed.stop_reason == pb.STOP_REASON_CANCELLED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CancelJob(pb.CancelJobRequest(job_id="unknown"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_full_queue_says_when_to_come_back(request_: pb.StylizeRequest):
    request_.options.iterations = 5000
    async with serving(max_queued=1) as (_, stub):
        running = stub.Stylize(request_)
        await running.read()
        assert (await running.read()).event.HasField("started")
        waiting = stub.Stylize(request_)  # Only now: two calls made at once arrive in any order.
        await waiting.read()
        assert (await waiting.read()).event.HasField("queued")
        code, details = await status(stub.Stylize(request_))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details[1].Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        running.cancel()
        waiting.cancel()


async def test_a_job_that_cannot_meet_its_deadline_is_refused(request_: pb.StylizeRequest):
    request_.options.iterations = 5000
    request_.options.image_size = 512
    async with serving() as (_, stub):
        code, details = await status(stub.Stylize(request_, timeout=20))
    info = error_details_pb2.ErrorInfo()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details[0].Unpack(info)
    assert info.reason == "DEADLINE_TOO_SHORT"
    # gRPC rounds a timeout up on the wire.
    assert float(info.metadata["estimated_seconds"]) > 21 > float(info.metadata["remaining_seconds"]) > 0
