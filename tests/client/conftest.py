"""A hand-written server that follows a script, and clients for it."""

import hashlib
import signal
import subprocess
import sys
import threading
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_client import AsyncStyleTransferClient, StyleTransferClient

LONGEST = 20.0
"""Seconds after which a handler that waits for its test gives up."""


class Script:
    """Builds the events of one job, numbered as they are built."""

    def __init__(self):
        self.sequence = 0

    def event(self, **kind):
        self.sequence += 1
        return pb.JobEvent(sequence=self.sequence, **kind)

    def accepted(self, job_id="job-1"):
        return self.event(
            accepted=pb.Accepted(
                job_id=job_id,
                options=pb.TransferOptions(
                    iterations=20,
                    optimizer=pb.OPTIMIZER_ADAM,
                    content_layers=[pb.LayerWeight(layer="relu4_2", weight=0.5), pb.LayerWeight(layer="relu3_1")],
                ),
                output=pb.OutputOptions(format=pb.PICTURE_FORMAT_WEBP, quality=80),
                weights=pb.Weights(id="caffe", sha256="aa"),
                width=64,
                height=48,
                estimate=pb.CostEstimate(seconds=2.5, queue_seconds=1.0, peak_memory_bytes=4096),
            )
        )

    def queued(self, position=2):
        return self.event(queued=pb.Queued(position=position, eta_seconds=3.0))

    def started(self):
        return self.event(started=pb.Started(device="cpu", queued_seconds=0.5))

    def progress(self, iteration, loss=12.5):
        return self.event(
            progress=pb.Progress(
                scale=1,
                scales=1,
                iteration=iteration,
                total_iterations=20,
                total_loss=loss,
                terms=[pb.LossTerm(kind=pb.LOSS_KIND_STYLE, layer="relu1_1", value=loss)],
                elapsed_seconds=2.0,
                eta_seconds=4.0,
            )
        )

    def preparing(self, part):
        return self.event(preparing=pb.Preparing(scale=1, scales=3, part=part, parts=2))

    def reduced(self):
        return self.event(reduced=pb.Reduced(width=32, height=24))

    def preview(self, data=b"preview"):
        return self.event(preview=pb.Preview(iteration=5, media_type="image/jpeg", width=16, height=12, data=data))

    def header(self, data, **changes):
        values = {
            "media_type": "image/png",
            "width": 64,
            "height": 48,
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return self.event(result_header=pb.ResultHeader(**values | changes))

    def chunk(self, offset, data):
        return self.event(result_chunk=pb.ResultChunk(offset=offset, data=data))

    def completed(self, stop_reason=pb.STOP_REASON_ITERATIONS):
        return self.event(
            completed=pb.Completed(
                stop_reason=stop_reason,
                iterations=20,
                total_loss=1.5,
                terms=[pb.LossTerm(kind=pb.LOSS_KIND_TOTAL_VARIATION, value=1.5)],
                timings=pb.Timings(queued_seconds=1, targets_seconds=2, optimize_seconds=3, encode_seconds=4),
                weights=pb.Weights(id="caffe", sha256="aa"),
            )
        )

    def picture(self, data=b"the picture", stop_reason=pb.STOP_REASON_ITERATIONS):
        middle = len(data) // 2
        return [
            self.header(data),
            self.chunk(0, data[:middle]),
            self.chunk(middle, data[middle:]),
            self.completed(stop_reason),
        ]

    def job(self, data=b"the picture"):
        """Return the events of a job, with every kind of the contract."""
        before = [
            self.accepted(),
            self.queued(),
            self.started(),
            self.preparing(1),
            self.progress(10),
            self.preview(),
            self.reduced(),
        ]
        return [*before, *self.picture(data)]


@dataclass
class Failure:
    """A step of a script that ends the call with a status."""

    code: grpc.StatusCode
    message: str = "because"
    reason: str = ""
    metadata: dict = field(default_factory=dict)
    retry_after: float | None = None
    violations: dict = field(default_factory=dict)
    resource: tuple = ()
    """Type and name."""
    domain: str = "nst"

    @property
    def status(self):
        details = []
        if self.reason:
            details.append(error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.metadata))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(round(self.retry_after * 1000))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.violations:
            fields = [
                error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
                for name, text in self.violations.items()
            ]
            details.append(error_details_pb2.BadRequest(field_violations=fields))
        if self.resource:
            kind, name = self.resource
            details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)


NO_JOB = Failure(grpc.StatusCode.NOT_FOUND, "no such job", resource=("nst.v1.Job", "job-1"))


def _abort(context, failure):
    context.abort_with_status(rpc_status.to_status(failure.status))


class FakeServicer(pb_grpc.StyleTransferServiceServicer):
    """Plays `attempts`, one list of steps for each call of Stylize, and `watch_attempts`, one for each of WatchJob.

    A step is an event, a Failure, or a function to call. Instead of the list there may be a function from the request
    to it.
    """

    def __init__(self):
        self.attempts = []
        self.watch_attempts = []
        self.requests = []
        """Of Stylize, but for their ids."""
        self.request_ids = []
        self.watches = []
        self.remaining = []
        """Seconds that the deadline of each call left."""
        self.cancelled = []
        """Ids of jobs and requests that CancelJob was called with."""
        self.cancel_asked = threading.Event()
        self.call_ended = threading.Event()
        self.authorizations = []
        """The headers that GetServerInfo was called with."""
        self.jobs = {"job-1"}
        self.described = []
        """What GetJob and ListJobs tell."""
        self.lists = []
        """The requests of ListJobs."""
        self.info = pb.GetServerInfoResponse()
        self.before_info = lambda: None
        """Called by GetServerInfo before it answers."""
        self.estimate = pb.EstimateResponse()
        self.estimate_failures = []
        """Of the next calls of Estimate."""
        self.health = health.HealthServicer()

    def wait_for_cancel(self):
        self.cancel_asked.wait(LONGEST)

    def wait_for_end(self):
        self.call_ended.wait(LONGEST)

    def Stylize(self, request, context):  # noqa: N802
        self.request_ids.append(request.request_id)
        request.ClearField("request_id")
        self.requests.append(request)
        for event in self._play(self.attempts, request, context):
            yield pb.StylizeResponse(event=event)

    def WatchJob(self, request, context):  # noqa: N802
        self.watches.append(request)
        for event in self._play(self.watch_attempts, request, context):
            yield pb.WatchJobResponse(event=event)

    def _play(self, attempts, request, context):
        self.remaining.append(context.time_remaining())
        context.add_callback(self.call_ended.set)
        if not attempts:
            _abort(context, Failure(grpc.StatusCode.FAILED_PRECONDITION, "no such call was expected", reason="TEST"))
        steps = attempts.pop(0)
        for step in steps(request) if callable(steps) else steps:
            match step:
                case pb.JobEvent():
                    yield step
                case Failure():
                    _abort(context, step)
                case _:
                    step()

    def GetJob(self, request, context):  # noqa: N802
        for job in self.described:
            if request.request_id in ("", job.request_id) and request.job_id in ("", job.job_id):
                return pb.GetJobResponse(job=job)
        return _abort(context, NO_JOB)

    def ListJobs(self, request, context):  # noqa: N802
        """In pages of at most two jobs."""
        del context
        self.lists.append(request)
        jobs = [job for job in self.described if not request.states or job.state in request.states]
        start = int(request.page_token or 0)
        end = start + min(request.page_size or 2, 2)
        return pb.ListJobsResponse(jobs=jobs[start:end], next_page_token=str(end) if end < len(jobs) else "")

    def CancelJob(self, request, context):  # noqa: N802
        name = request.job_id or request.request_id
        if name not in self.jobs | set(self.request_ids):
            _abort(context, NO_JOB)
        self.cancelled.append(name)
        self.cancel_asked.set()
        return pb.CancelJobResponse(state=pb.JOB_STATE_RUNNING)

    def Estimate(self, request, context):  # noqa: N802
        self.requests.append(request.stylize)
        if self.estimate_failures:
            _abort(context, self.estimate_failures.pop(0))
        return self.estimate

    def GetServerInfo(self, request, context):  # noqa: N802
        del request
        self.before_info()
        self.authorizations += [value for key, value in context.invocation_metadata() if key == "authorization"]
        return self.info


@pytest.fixture
def script():
    return Script()


@pytest.fixture
def failure():
    return Failure


@pytest.fixture
def servicer():
    return FakeServicer()


class Host:
    """A real server for a servicer, which can go and come back on the same port."""

    def __init__(self, servicer):
        self._servicer = servicer
        self._port = 0
        self.start()

    @property
    def target(self):
        return f"127.0.0.1:{self._port}"

    def start(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        pb_grpc.add_StyleTransferServiceServicer_to_server(self._servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer.health, self._server)
        self._port = self._server.add_insecure_port(f"127.0.0.1:{self._port}")
        self._server.start()

    def stop(self):
        """Break every connection; wait for the handlers with what is returned."""
        return self._server.stop(None)

    def restart(self):
        self.stop()
        self.start()


@pytest.fixture
def host(servicer):
    host = Host(servicer)
    yield host
    servicer.cancel_asked.set()
    servicer.call_ended.set()
    host.stop().wait()


@pytest.fixture
def target(host):
    """Where a real server serves `servicer`."""
    return host.target


@pytest.fixture
def client(target):
    with StyleTransferClient(target) as client:
        yield client


@pytest.fixture
async def async_client(target):
    async with AsyncStyleTransferClient(target) as client:
        yield client


@pytest.fixture
def no_jitter(monkeypatch):
    """Make retries wait exactly as long as the server suggests, and lost servers be looked for at once."""
    monkeypatch.setattr("random.random", lambda: 0.0)


@pytest.fixture
def pictures(tmp_path):
    """Files of a content and two styles; nobody decodes them."""
    paths = [tmp_path / name for name in ("content.jpg", "style.jpg", "other.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


@pytest.fixture
def lost(failure):
    """How gRPC says that a connection broke: without details."""
    return failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@pytest.fixture
def no_job():
    return NO_JOB


@pytest.fixture
def description(script):
    """Describe a job as GetJob and ListJobs do."""

    def description(job_id="job-1", state=pb.JOB_STATE_SUCCEEDED, **fields):
        job = pb.Job(job_id=job_id, state=state, disconnect_policy=pb.DISCONNECT_POLICY_CANCEL, **fields)
        job.create_time.FromJsonString("2026-11-24T18:00:00Z")
        job.accepted.CopyFrom(script.accepted(job_id).accepted)
        job.width, job.height = job.accepted.width, job.accepted.height
        if state == pb.JOB_STATE_SUCCEEDED:
            job.end_time.FromJsonString("2026-11-24T18:01:00Z")
            job.result.CopyFrom(script.header(b"the picture").result_header)
            job.completed.CopyFrom(script.completed().completed)
        if state == pb.JOB_STATE_RUNNING:
            job.progress.CopyFrom(script.progress(10).progress)
        return job

    return description


@pytest.fixture
def start(target):
    """Start a real `nst-client`, with the arguments of `subprocess.Popen`."""
    started = []

    def start(*arguments, ignored=(), **options):
        code = inherit_signals(ignored) + "from nst_launcher.commands import client; client()"
        command = [sys.executable, "-c", code, "--target", target, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes | options))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def inherit_signals(ignored=()):
    """Return code that makes a program begin as if its parent ignored these signals that ask it to end, and no others.

    The shell that started the tests may ignore SIGINT itself.
    """
    actions = dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), "SIG_DFL")
    actions |= dict.fromkeys(ignored, "SIG_IGN")
    lines = [f"signal.signal({number}, signal.{action})\n" for number, action in actions.items()]
    return "import signal\n" + "".join(lines)
