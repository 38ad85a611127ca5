"""A hand-written server that follows a script, and clients for it."""

import hashlib
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
        """Every kind of event once."""
        before = [
            self.accepted(),
            self.queued(),
            self.started(),
            self.preparing(1),
            self.progress(10),
            self.preview(),
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
        packed = []
        for detail in details:
            packed.append(any_pb2.Any())
            packed[-1].Pack(detail)
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)


class FakeServicer(pb_grpc.StyleTransferServiceServicer):
    """Plays `attempts`, one list of steps for each call. A step is an event, a Failure, or a function to call."""

    def __init__(self):
        self.attempts = []
        self.requests = []
        self.remaining = []
        """Seconds that the deadline of each call left."""
        self.cancelled = []
        """Ids that CancelJob was called with."""
        self.cancel_asked = threading.Event()
        self.call_ended = threading.Event()
        self.authorizations = []
        """The headers that GetServerInfo was called with."""
        self.jobs = {"job-1"}
        self.info = pb.GetServerInfoResponse()
        self.estimate = pb.EstimateResponse()
        self.health = health.HealthServicer()

    def wait_for_cancel(self):
        self.cancel_asked.wait(LONGEST)

    def wait_for_end(self):
        self.call_ended.wait(LONGEST)

    def Stylize(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.remaining.append(context.time_remaining())
        context.add_callback(self.call_ended.set)
        for step in self.attempts.pop(0):
            match step:
                case pb.JobEvent():
                    yield pb.StylizeResponse(event=step)
                case Failure():
                    context.abort_with_status(rpc_status.to_status(step.status))
                case _:
                    step()

    def CancelJob(self, request, context):  # noqa: N802
        if request.job_id not in self.jobs:
            context.abort_with_status(rpc_status.to_status(Failure(grpc.StatusCode.NOT_FOUND, "no such job").status))
        self.cancelled.append(request.job_id)
        self.cancel_asked.set()
        return pb.CancelJobResponse(state=pb.JOB_STATE_RUNNING)

    def Estimate(self, request, context):  # noqa: N802
        del context
        self.requests.append(request.stylize)
        return self.estimate

    def GetServerInfo(self, request, context):  # noqa: N802
        del request
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


@pytest.fixture
def target(servicer):
    """Where a real server serves `servicer`."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    pb_grpc.add_StyleTransferServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer.health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    servicer.cancel_asked.set()
    servicer.call_ended.set()
    server.stop(None).wait()


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
    """Make retries wait exactly as long as the server suggests."""
    monkeypatch.setattr("random.random", lambda: 0.0)


@pytest.fixture
def pictures(tmp_path):
    """Files of a content and two styles; nobody decodes them."""
    paths = [tmp_path / name for name in ("content.jpg", "style.jpg", "other.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths
