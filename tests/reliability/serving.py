"""Servers that are killed and started again, and clients that check that nothing is lost."""

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

HANG_SECONDS = 300
"""Seconds after which a test counts as hung. No test measures time."""
ENDLESS = 100_000
"""Iterations that no test waits for."""
KINDS = (
    *("accepted", "queued", "started", "preparing", "progress", "preview"),
    *("result_header", "result_chunk", "completed"),
)
"""The kinds of the events of a job."""
OUTDATED = ("queued", "preparing", "progress", "preview")
"""The kinds of events of which a reader may miss some."""
TERMINAL = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_CANCELLED, pb.JOB_STATE_FAILED)

MakeRequest = Callable[..., pb.StylizeRequest]
"""A function that makes a request of small pictures from iterations, a seed, and fields of the message."""
Undisturbed = Callable[[pb.StylizeRequest], Awaitable[bytes]]
"""A function that returns the picture of a request on a server where nothing breaks."""

_CHANNEL = (
    # The failures of a connection must not delay the next one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
)
_DEADLINE_SECONDS = 1.0
"""Seconds in which a job on a fast machine has begun."""
_PAUSE = 0.01
"""Seconds between two checks."""
_RESET = struct.pack("ii", 1, 0)
"""The option of a socket that does not linger. Closing the socket resets its connection."""


class _Token:
    """Sends a token with every call. gRPC takes an interceptor for one kind of call only."""

    def __init__(self, token: str):
        self._headers = (("authorization", f"Bearer {token}"),)

    async def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details._replace(metadata=self._headers), request)


class _TokenOfCalls(_Token, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    intercept_unary_unary = _Token._call


class _TokenOfStreams(_Token, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc]
    intercept_unary_stream = _Token._call


class Stub:
    """A connection to a server."""

    def __init__(self, port: int, token: str = ""):
        interceptors = [_TokenOfCalls(token), _TokenOfStreams(token)] if token else []
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", _CHANNEL, interceptors=interceptors)
        stub = pb_grpc.StyleTransferServiceStub(self.channel)
        self.stylize, self.estimate = stub.Stylize, stub.Estimate
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self._stub = stub

    def watch(self, job_id: str, after: int = 0) -> Any:
        return self._stub.WatchJob(pb.WatchJobRequest(job_id=job_id, after_sequence=after))

    async def cancel(self, job_id: str) -> None:
        await self._stub.CancelJob(pb.CancelJobRequest(job_id=job_id))

    async def job(self, job_id: str) -> pb.Job:
        return (await self._stub.GetJob(pb.GetJobRequest(job_id=job_id))).job

    async def jobs(self) -> list[pb.Job]:
        jobs: list[pb.Job] = []
        token = ""
        while True:
            page = await self._stub.ListJobs(pb.ListJobsRequest(page_size=1000, page_token=token))
            jobs += page.jobs
            token = page.next_page_token
            if not token:
                return jobs

    async def info(self) -> pb.GetServerInfoResponse:
        return await self._stub.GetServerInfo(pb.GetServerInfoRequest())

    async def serving(self) -> None:
        """Wait until the server serves."""
        watch = self.health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        watch.cancel()

    async def idle(self) -> None:
        """Wait until the server holds no job that has not ended."""
        info, jobs = pb.GetServerInfoResponse(), list[pb.Job]()
        try:
            while True:
                info = await self.info()
                if not info.running_jobs + info.queued_jobs:
                    jobs = [job for job in await self.jobs() if job.state not in TERMINAL]
                    if not jobs:
                        return
                await asyncio.sleep(_PAUSE)
        except asyncio.CancelledError:
            print(f"{info.running_jobs} jobs run, {info.queued_jobs} wait; not ended:", *jobs)
            raise


@contextlib.asynccontextmanager
async def connected(port: int, patience: float | None = HANG_SECONDS) -> AsyncIterator[Stub]:
    """Yield a connection, for at most this number of seconds."""
    stub = Stub(port)
    async with asyncio.timeout(patience), stub.channel:
        yield stub


class Launcher:
    """The process that servers are forked from (see `launcher`)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"},
        )

    def order(self, **order: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


class KillableServer:
    """A server in a process of its own, always with the same port and the same jobs."""

    def __init__(self, launcher: Launcher, folder: Path):
        self.folder = folder
        self.log = folder / "server.log"
        self.port = free_port()
        self._launcher = launcher
        self._pid: int | None = None

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self._pid)

    @property
    def data(self) -> Path:
        return self.folder / "jobs"

    @property
    def is_alive(self) -> bool:
        # What has ended stays there for its parent to ask about it.
        return self._pid is not None and self.process.status() != psutil.STATUS_ZOMBIE

    def start(self, faults: dict[str, Any] | None = None, **settings: Any) -> None:
        """Start the process, without waiting until it serves."""
        defaults = {
            "address": f"127.0.0.1:{self.port}",
            "data_dir": str(self.data),
            "threads": 1,
            "grace": 0.0,
            "max_running": 1,
            "max_iterations": ENDLESS,
            "checkpoint_seconds": 0.0,
        }
        self._pid = self._launcher.order(settings=defaults | settings, faults=faults or {}, log=str(self.log))

    async def serve(self, faults: dict[str, Any] | None = None, **settings: Any) -> None:
        """Start the process, and wait until it serves."""
        self.start(faults, **settings)
        async with connected(self.port) as stub:
            await stub.serving()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """End the process with a signal, if it runs, and return its exit code."""
        if self._pid is None:
            return 0
        os.kill(self._pid, number)
        return self.ended()

    def ended(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        code = self._launcher.order(wait=self._pid)
        self._pid = None
        return code

    def stub(self) -> contextlib.AbstractAsyncContextManager[Stub]:
        return connected(self.port)

    async def serve_with_deadline(self, make: MakeRequest, until: str) -> "Story":
        """Start the server with an endless job whose deadline is soon after an event of a kind. Return its story."""
        seconds = _DEADLINE_SECONDS
        while True:
            await self.serve()
            async with self.stub() as stub:
                request, story = make(ENDLESS, disconnect_policy=pb.DISCONNECT_POLICY_KEEP_RUNNING), Story()
                try:
                    await story.read(stub.stylize(request, timeout=seconds), until)
                    return story
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                        raise
            # The machine is too slow for that. The next server has not seen how slow, and so refuses nothing.
            self.kill()
            seconds *= 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Proxy:
    """A proxy between clients and a server. It can cut the connections, or let nothing through."""

    def __init__(self, port: int):
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Proxy"]:
        listener = await asyncio.start_server(self._forward_both, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            self.thaw()
            self.cut()
            while self._writers:
                await asyncio.sleep(_PAUSE)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for writer in self._writers:
            # One side may have closed it.
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing through, without closing a connection."""
        self._open.clear()

    def thaw(self) -> None:
        """Let everything through again, including the bytes that were held back."""
        self._open.set()

    async def _forward_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, other_writer}
        try:
            await asyncio.gather(self._forward(reader, other_writer), self._forward(other_reader, writer))
        finally:
            self._writers -= {writer, other_writer}

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(2**16):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Story:
    """The events that a client got of a job over all its calls, checked for gaps, repetitions and contradictions."""

    job_id: str = ""
    last: int = 0
    """The sequence of the last event."""
    header: pb.ResultHeader | None = None
    data: bytes = field(default=b"", repr=False)
    completed: pb.Completed | None = None
    iteration: int = field(default=0, compare=False)
    """The iteration of the last Progress."""
    kept: list[pb.JobEvent] = field(default_factory=list, repr=False)
    """The events of the kinds that no reader may miss."""

    def add(self, event: pb.JobEvent) -> None:
        kind = event.WhichOneof("event")
        assert event.sequence > self.last
        assert self.completed is None
        self.last = event.sequence
        if kind not in OUTDATED:
            self.kept.append(event)
        match kind:
            case "progress":
                self.iteration = event.progress.iteration
            case "accepted":
                assert not self.job_id
                self.job_id = event.accepted.job_id
            case "result_header":
                assert self.header is None
                self.header = event.result_header
            case "result_chunk":
                assert event.result_chunk.offset == len(self.data)
                self.data += event.result_chunk.data
            case "completed":
                assert self.header is not None
                assert hashlib.sha256(self.data).hexdigest() == self.header.sha256
                self.completed = event.completed

    async def read(self, call: Any, until: str | None = None) -> None:
        """Read a call up to the first event of a kind, or to its end."""
        async for response in call:
            self.add(response.event)
            if response.event.WhichOneof("event") == until:
                return


async def told(stub: Stub, job_id: str) -> Story:
    """Read all events of a job."""
    story = Story()
    await story.read(stub.watch(job_id))
    return story


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """Return the code and the reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await Story().read(call)
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason
