"""The life of a server (warm-up, service, drain), and its jobs and clients meanwhile."""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_service import runtime as runtime_module
from nst_service import server as server_module
from nst_service.addresses import AddressError
from nst_service.cli import main
from nst_service.config import ServerConfig
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.spec import TransferSpec
from nst_service.jobs import run as run_module
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs.decoders import Decoders
from nst_service.jobs.worker import DeviceWorker
from nst_service.rpc.health import HealthServicer
from nst_service.server import Server, ServerEnd, serve
from nst_service.store.store import Store

pytestmark = pytest.mark.usefixtures("quick_start")

_HANG_SECONDS = 60
"""Seconds after which a test counts as hung. No test measures time."""
_ENDLESS = 5000
"""Iterations that no test waits for."""
_LONG = 600.0
"""Seconds that no test waits for."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

Call = grpc.aio.UnaryStreamCall[pb.StylizeRequest, pb.StylizeResponse]


class Steps:
    """The steps of the optimiser, which the test counts and can hold."""

    def __init__(self) -> None:
        self.done = 0
        self.models: list[Vgg19] = []
        """The number of steps of each transfer."""
        self.free = threading.Event()
        """Event that lets steps go on. While it is cleared, the device hangs in its next step."""
        self.free.set()
        self.hanging = False
        """Whether the device hangs."""

    def transfer(self, spec: TransferSpec, model: Vgg19, tile: int | None, *rest: Any) -> Iterator[Iterate]:
        self.models.append(model)
        for iterate in optimize(spec, model, tile, *rest):
            self.done += 1
            yield iterate
            self.hanging = not self.free.is_set()
            self.free.wait()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    steps = Steps()
    monkeypatch.setattr(run_module, "transfer", steps.transfer)
    yield steps
    steps.free.set()


@dataclass(frozen=True)
class Client:
    """A server as a client sees it."""

    stub: pb_grpc.StyleTransferServiceStub
    health: grpc.aio.UnaryStreamCall[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]

    async def sees(self, status: int) -> None:
        while (await self.health.read()).status != status:
            pass


@dataclass(frozen=True)
class Service(Client):
    """A server in this process, with the handles to end it."""

    server: Server
    stop: asyncio.Event
    stopped: asyncio.Task[ServerEnd]

    async def ended(self) -> bool:
        # Whoever watches the health is waited for.
        self.health.cancel()
        return (await self.stopped).is_idle


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    async with asyncio.timeout(_HANG_SECONDS), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        yield Client(pb_grpc.StyleTransferServiceStub(channel), health)


@contextlib.asynccontextmanager
async def serving(*, warm: bool = True, grace: float = 0.0) -> AsyncIterator[Service]:
    server = Server(ServerConfig(address="127.0.0.1:0", grace=grace))
    stop, listening = asyncio.Event(), asyncio.Future()
    stopped = asyncio.create_task(server.run(stop, listening.set_result))
    try:
        async with connected(await asyncio.wait_for(listening, _HANG_SECONDS)) as client:
            service = Service(client.stub, client.health, server, stop, stopped)
            if warm:
                await service.sees(_SERVING)
            yield service
    finally:
        stop.set()
        await asyncio.wait_for(stopped, _HANG_SECONDS)


async def read_to_end(call: Call) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def read_until(call: Call, kind: str) -> pb.JobEvent:
    """Read the events of a job up to one of a kind."""
    while (event := (await call.read()).event).WhichOneof("event") != kind:
        pass
    return event


async def finished(call: Call) -> pb.Completed:
    """Read a job to its end and check that its picture is whole."""
    header = (await read_until(call, "result_header")).result_header
    data = b""
    while (event := (await call.read()).event).HasField("result_chunk"):
        data += event.result_chunk.data
    assert hashlib.sha256(data).hexdigest() == header.sha256
    assert await call.read() is grpc.aio.EOF
    return event.completed


async def refused(call: Call) -> tuple[str, float]:
    """Read a job that ends UNAVAILABLE and return the reason, and the seconds after which to try again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_to_end(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(caught.value)
    assert status is not None, caught.value.details()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    return info.reason, retry.retry_delay.ToTimedelta().total_seconds()


async def test_a_server_that_warms_up_refuses_jobs_and_serves_when_warm(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch
):
    warm = threading.Event()
    warm_up = DeviceWorker.warm_up
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: (warm.wait(), warm_up(worker)))
    try:
        async with serving(warm=False) as service:
            assert (await service.health.read()).status == _NOT_SERVING
            reason, retry_after = await refused(service.stub.Stylize(request_))
            assert reason == "WARMING_UP"
            assert retry_after > 0
            warm.set()
            await service.sees(_SERVING)
            assert (await finished(service.stub.Stylize(request_))).stop_reason == pb.STOP_REASON_ITERATIONS
    finally:
        warm.set()


async def test_a_server_told_to_stop_while_it_warms_up_never_serves(monkeypatch: pytest.MonkeyPatch):
    told: list[int] = []

    def set_status(_: object, __: str, status: int) -> None:
        told.append(status)

    warm = threading.Event()
    monkeypatch.setattr(HealthServicer, "set", set_status)
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda _: warm.wait())
    async with serving(warm=False) as service:
        service.stop.set()
        warm.set()
        assert await service.ended()
    assert _NOT_SERVING in told
    assert _SERVING not in told


async def test_a_server_that_waits_for_its_devices_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch):
    closed = threading.Event()
    monkeypatch.setattr(DeviceWorker, "is_restartable", True)
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda _: closed.wait())
    monkeypatch.setattr(DeviceWorker, "close", lambda _: closed.set())
    async with serving(warm=False) as service:
        service.stop.set()
        assert await service.ended()


async def test_a_server_is_healthy_while_it_has_a_device_and_its_jobs_wait_for_one(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch, steps: Steps
):
    serve, ends, back = DeviceWorker.serve, [False, True], threading.Event()
    back.set()

    def lose_once(worker: DeviceWorker) -> bool:
        serve(worker)
        return ends.pop(0)

    monkeypatch.setattr(DeviceWorker, "is_restartable", True)
    monkeypatch.setattr(DeviceWorker, "serve", lose_once)
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: (back.wait(), setattr(worker, "memory", 2**30)))
    try:
        async with serving() as service:
            steps.free.clear()
            back.clear()
            (device,) = service.server.scheduler._pool._devices
            device.worker.close()
            await service.sees(_NOT_SERVING)
            waiting = service.stub.Stylize(request_)
            await read_until(waiting, "queued")
            back.set()
            await service.sees(_SERVING)
            steps.free.set()
            assert (await finished(waiting)).stop_reason == pb.STOP_REASON_ITERATIONS
            assert not service.server.scheduler.device_failed.is_set()
    finally:
        back.set()


async def test_a_draining_server_refuses_new_and_waiting_jobs_and_lets_the_running_one_finish(
    request_: pb.StylizeRequest, steps: Steps
):
    steps.free.clear()
    async with serving(grace=_LONG) as service:
        running = service.stub.Stylize(request_)
        await read_until(running, "progress")
        waiting = service.stub.Stylize(request_)
        await read_until(waiting, "queued")
        service.stop.set()
        await service.sees(_NOT_SERVING)
        for call in (waiting, service.stub.Stylize(request_)):
            reason, retry_after = await refused(call)
            assert reason == "DRAINING"
            assert retry_after > 0
        steps.free.set()
        assert (await finished(running)).stop_reason == pb.STOP_REASON_ITERATIONS
        assert await service.ended()


async def test_a_job_that_outlives_the_grace_period_ends_with_its_best_picture(request_: pb.StylizeRequest):
    request_.options.iterations = _ENDLESS
    async with serving(grace=0.0) as service:
        call = service.stub.Stylize(request_)
        await read_until(call, "progress")
        service.stop.set()
        assert (await finished(call)).stop_reason == pb.STOP_REASON_SHUTDOWN
        assert await service.ended()


async def test_a_drain_does_not_wait_for_a_step_that_does_not_end(
    request_: pb.StylizeRequest, steps: Steps, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scheduler_module, "_LAST_STEP_SECONDS", 0.1)
    steps.free.clear()
    async with serving(grace=0.0) as service:
        call = service.stub.Stylize(request_)
        await read_until(call, "progress")
        while not steps.hanging:
            await asyncio.sleep(0.01)
        service.stop.set()
        assert (await refused(call))[0] == "DRAINING"
        assert not await service.ended()


@pytest.mark.parametrize(("device_failed", "code"), [(False, 0), (True, 3)])
def test_the_process_waits_neither_for_a_step_that_does_not_end_nor_for_a_store_that_hangs(
    monkeypatch: pytest.MonkeyPatch, device_failed: bool, code: int
):
    async def drained_in_a_step(_: ServerConfig) -> ServerEnd:
        return ServerEnd(is_idle=False, device_failed=device_failed)

    codes: list[int] = []
    monkeypatch.setattr(server_module, "serve", drained_in_a_step)
    monkeypatch.setattr(os, "_exit", codes.append)
    CliRunner().invoke(main)
    assert codes == [code]


def test_a_server_without_the_precision_that_it_is_told_says_so():
    result = CliRunner().invoke(main, ["--device", "cpu", "--precision", "bfloat16", "--address", "localhost:0"])
    assert result.exit_code == 1
    assert "precision 'bfloat16' needs a GPU" in result.output


async def test_a_drain_does_not_wait_for_a_store_that_hangs_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(server_module, "_CLOSE_SECONDS", 0.1)
    answered = threading.Event()
    close = Store.close

    def hang(store: Store) -> None:
        answered.wait(60)
        close(store)

    monkeypatch.setattr(Store, "close", hang)
    async with serving() as service:
        service.stop.set()
        assert await service.ended()
        answered.set()
    assert "the store could not be closed in time" in caplog.text


async def test_a_drain_does_not_wait_for_a_client_that_stopped_reading(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "_FLUSH_SECONDS", 0.1)
    # More than gRPC and the kernel hold between a server and a client.
    monkeypatch.setattr(run_module, "encode", lambda *_, **__: bytes(32 * 2**20))
    async with serving(grace=_LONG) as service:
        call = service.stub.Stylize(request_)
        await read_until(call, "result_header")
        service.stop.set()
        assert await service.ended()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_to_end(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_draining_server_refuses_the_requests_that_it_has_not_decoded(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch
):
    decoded, check = asyncio.Event(), Decoders.check

    async def check_later(*arguments: Any) -> None:
        await decoded.wait()
        await check(*arguments)

    monkeypatch.setattr(Decoders, "check", check_later)
    async with serving() as service:
        calls = [service.stub.Stylize(request_) for _ in range(3)]
        while len(service.server.scheduler._table._admitting) < len(calls):
            await asyncio.sleep(0.01)
        service.stop.set()
        await service.sees(_NOT_SERVING)
        decoded.set()
        assert {(await refused(call))[0] for call in calls} == {"DRAINING"}


async def test_a_real_server_that_gets_sigterm_delivers_the_best_picture_and_exits_0(request_: pb.StylizeRequest):
    request_.options.iterations = _ENDLESS
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("nst-server"),
        *("--address", "127.0.0.1:0", "--grace", "0"),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_HANG_SECONDS):
            line = await process.stderr.readuntil(b"warming up")
        listening = re.search(rb"listening on port (\d+)", line)
        async with connected(int(listening[1])) as client:
            await client.sees(_SERVING)
            client.health.cancel()
            call = client.stub.Stylize(request_)
            await read_until(call, "progress")
            process.terminate()
            assert (await finished(call)).stop_reason == pb.STOP_REASON_SHUTDOWN
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGHUP)],
)
async def test_a_second_signal_ends_the_grace_period(
    request_: pb.StylizeRequest, first: signal.Signals, second: signal.Signals, caplog: pytest.LogCaptureFixture
):
    request_.options.iterations = _ENDLESS
    caplog.set_level("INFO", "nst_service.server")
    stopped = asyncio.create_task(serve(ServerConfig(address="127.0.0.1:0", grace=_LONG)))
    async with asyncio.timeout(_HANG_SECONDS):
        while not (listening := re.search(r"listening on port (\d+)", caplog.text)):
            await asyncio.sleep(0.01)
    async with connected(int(listening[1])) as client:
        await client.sees(_SERVING)
        call = client.stub.Stylize(request_)
        await read_until(call, "progress")
        os.kill(os.getpid(), first)
        await client.sees(_NOT_SERVING)
        await read_until(call, "progress")
        os.kill(os.getpid(), second)
        assert (await finished(call)).stop_reason == pb.STOP_REASON_SHUTDOWN
        client.health.cancel()
        assert (await stopped).is_idle


async def test_a_job_whose_deadline_runs_out_ends_early_with_its_best_picture(request_: pb.StylizeRequest):
    # Nothing has been learnt of the device's pace without a warm-up, so the job is expected to fit.
    request_.options.iterations = _ENDLESS
    async with serving() as service:
        completed = await finished(service.stub.Stylize(request_, timeout=3))
    assert completed.stop_reason == pb.STOP_REASON_DEADLINE
    assert 0 < completed.iterations < _ENDLESS


async def test_a_client_that_leaves_frees_the_device_within_two_steps_for_the_next_job(
    request_: pb.StylizeRequest, steps: Steps, monkeypatch: pytest.MonkeyPatch
):
    endless = pb.StylizeRequest()
    endless.CopyFrom(request_)
    endless.options.iterations = _ENDLESS
    async with serving() as service:
        stop, done = service.server.scheduler._stop, []
        monkeypatch.setattr(
            service.server.scheduler, "_stop", lambda *arguments: (done.append(steps.done), stop(*arguments))
        )
        leaving = service.stub.Stylize(endless)
        await read_until(leaving, "progress")
        following = service.stub.Stylize(request_)
        await read_until(following, "started")
        leaving.cancel()
        completed = await finished(following)
    assert completed.stop_reason == pb.STOP_REASON_ITERATIONS
    assert steps.done - completed.iterations - done[0] <= 2


async def test_weights_are_loaded_once_for_all_jobs(
    request_: pb.StylizeRequest, steps: Steps, weights: Weights, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[str] = []
    monkeypatch.setattr(runtime_module, "load_weights", lambda source, _: (loaded.append(source), weights)[1])
    async with serving() as service:
        for _ in range(2):
            await finished(service.stub.Stylize(request_))
    assert loaded == ["caffe"]
    first, second = steps.models
    assert first is second


async def test_a_second_server_leaves_the_socket_of_the_first_alone(tmp_path: Path):
    path = tmp_path / "nst.sock"
    server = Server(ServerConfig(address=f"unix:{path}"))
    stop, listening = asyncio.Event(), asyncio.Future()
    running = asyncio.create_task(server.run(stop, listening.set_result))
    try:
        await asyncio.wait_for(listening, _HANG_SECONDS)
        with pytest.raises(AddressError, match="another server listens there"):
            Server(ServerConfig(address=f"unix:{path}"))
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            stub = pb_grpc.StyleTransferServiceStub(channel)
            assert (await stub.GetServerInfo(pb.GetServerInfoRequest())).version
    finally:
        stop.set()
        await asyncio.wait_for(running, _HANG_SECONDS)
    assert not path.exists()


async def test_a_port_that_is_taken_is_named_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressError, match=f"cannot listen on '{address}': Address already in use"):
            await Server(ServerConfig(address=address)).run(asyncio.Event())
