"""Arbitrary input: the answer is a picture or an error of the contract, and the server goes on."""

import asyncio
import contextlib
import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import hypothesis
import pytest
import torch
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from hypothesis import strategies as st
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_service.config import ServerConfig
from nst_service.engine.choices import OutputFormat
from nst_service.engine.errors import PictureError
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.headers import read_size
from nst_service.engine.pictures.tensors import picture_to_tensor
from nst_service.rpc.servicer import StyleTransferServicer
from nst_service.server import Server

from tests.reliability.samples import damaged, samples

# Pillow warns of oddities in hostile files; whether it does is not what is tested here.
pytestmark = [
    pytest.mark.usefixtures("quick_start"),
    pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning"),
]

_HANG_SECONDS = 60
"""Seconds after which a call counts as hung. No test measures time."""
_MAX_PIXELS = 100_000
_MAX_DECODING_BYTES = 64 * 2**20
"""The memory in bytes that reading a picture of so few pixels may take, whatever its header says."""

_SERVICE = pb.DESCRIPTOR.services_by_name["StyleTransferService"]
_CODES = grpc.StatusCode
_DOCUMENTED: Mapping[grpc.StatusCode, set[str]] = {
    _CODES.INVALID_ARGUMENT: {"BadRequest", "ErrorInfo"},
    _CODES.RESOURCE_EXHAUSTED: {"ErrorInfo"},
    _CODES.FAILED_PRECONDITION: {"ErrorInfo"},
    _CODES.NOT_FOUND: {"ResourceInfo"},
    _CODES.ALREADY_EXISTS: {"ResourceInfo"},
    _CODES.CANCELLED: {"ErrorInfo"},
}
"""The codes with which an idle server may refuse a call, each with the details of which it has one."""

_ODD_TEXTS = (
    *LAYERS,
    "relu9_9",
    "",
    "\0",
    "\n",
    "\N{SNOWMAN}" * 500,
    "\N{PILE OF POO}" * 500,
    "%s{0}\u202e",
    "x" * 10_000,
)
_ODD_NUMBERS = (-(2**63), -(2**31), -1, 0, 1, 2, 8, 16, 64, 65, 2**31 - 1, 2**63 - 1, 2**64 - 1)
_ODD_FLOATS = (0.0, -0.0, 0.1, 0.5, 1.0, 4.0, -1.0, 5e-324, 1e-30, 1e12, 1.1e12, 1e300)


def search(check: Callable[[Any], None], values: st.SearchStrategy[Any], *, examples: int, chance: int) -> None:
    """Check this number of values. Of those that fail, the simplest is reported."""
    settings = hypothesis.settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    settings(hypothesis.seed(chance)(hypothesis.given(values)(check)))()


class TestPictures:
    def test_every_sample_is_read(self):
        refused = {}
        for name, data in samples().items():
            try:
                decode(data, max_pixels=_MAX_PIXELS)
            except PictureError as error:
                refused[name] = str(error)
        assert list(refused) == ["tiff float"]
        assert refused["tiff float"].startswith("has floating-point pixels")

    def test_a_damaged_picture_is_a_picture_or_a_refusal_in_bounded_memory_and_time(self, chaos: bool, chance: int):
        outcomes: Counter[str] = Counter()

        def check(data: bytes) -> None:
            started = time.monotonic()
            with _bounded_memory(_MAX_DECODING_BYTES):
                outcomes[_outcome(data)] += 1
            assert time.monotonic() - started < _HANG_SECONDS

        search(check, damaged(), examples=20_000 if chaos else 300, chance=chance)
        print(*(f"{count} {outcome}" for outcome, count in outcomes.most_common()), sep="\n")
        assert {"picture", "is damaged or truncated"} <= outcomes.keys()


def _outcome(data: bytes) -> str:
    try:
        picture = decode(data, max_pixels=_MAX_PIXELS)
    except PictureError as error:
        # Without the numbers of the picture.
        return re.sub(r"\d+", "N", str(error).partition(",")[0])
    assert read_size(data, max_pixels=_MAX_PIXELS) == picture.size
    assert picture.rgb.mode == "RGB"
    assert picture.width * picture.height <= _MAX_PIXELS
    assert picture.alpha is None or (picture.alpha.mode, picture.alpha.size) == ("L", picture.size)
    assert picture.to_mask().mode == "L"
    assert picture_to_tensor(picture.flattened().resized((8, 8))).shape == (1, 3, 8, 8)
    return "picture"


@contextlib.contextmanager
def _bounded_memory(limit: int) -> Iterator[None]:
    """Fail if the memory of the process grows by more bytes in between, on systems that report it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        yield
        return
    before = _held_bytes("VmRSS")
    yield
    assert _held_bytes("VmHWM") - before < limit


def _held_bytes(what: str) -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


def _texture(width: int, height: int) -> bytes:
    noise = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(width))
    return encode(noise, format=OutputFormat.PNG, quality=95)


_PICTURES = tuple(_texture(*size) for size in ((48, 37), (1, 1), (2, 3), (16, 16), (17, 15), (1, 200), (200, 1)))
_BLACK = encode(torch.zeros(1, 3, 8, 8), format=OutputFormat.PNG, quality=95)


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Message:
    """A message with a few of its fields set, to whatever they can hold."""
    message, fields = kind(), list(kind.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(fields), max_size=3)) if fields else ():
        held = getattr(message, field.name)
        if hasattr(held, "extend"):
            held.extend(draw(st.lists(_values(field), max_size=3)))
        elif field.message_type:
            held.SetInParent()
            held.MergeFrom(draw(_values(field)))
        else:
            setattr(message, field.name, draw(_values(field)))
    return message


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE if field.message_type is pb.Picture.DESCRIPTOR:
            # Else every other one would be named by a hash that nobody knows, and few requests came further.
            data = _values(pb.Picture.DESCRIPTOR.fields_by_name["data"])
            return st.builds(pb.Picture, data=data) | st.builds(pb.Picture, data=data) | messages(pb.Picture)
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return messages(GetMessageClass(field.message_type))
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.sampled_from(_ODD_FLOATS) | st.floats(0, 2) | st.floats()
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.sampled_from(sorted(field.enum_type.values_by_number)) | _integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.CPPTYPE_INT32:
            return _integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.CPPTYPE_INT64:
            return _integers(-(2**63), 2**63 - 1)
        case FieldDescriptor.CPPTYPE_UINT64:
            return _integers(0, 2**64 - 1)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            whole = st.sampled_from(_PICTURES) | st.sampled_from(sorted(samples().values()))
            return whole | damaged() | st.sampled_from((_BLACK, b"", bytes(300_000))) | st.binary(max_size=100)
        case FieldDescriptor.CPPTYPE_STRING:
            return st.sampled_from(_ODD_TEXTS) | st.text()
    raise NotImplementedError(field.full_name)


def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    odd = [number for number in _ODD_NUMBERS if low <= number <= high]
    return st.sampled_from(odd) | st.integers(max(low, -3), 70) | st.integers(low, high)


@st.composite
def requests(draw: st.DrawFn, good: pb.StylizeRequest) -> pb.StylizeRequest:
    """A request that is mostly valid, with a few fields changed."""
    request = pb.StylizeRequest()
    if draw(st.integers(0, 9)):
        request.CopyFrom(good)
    request.MergeFrom(draw(messages(pb.StylizeRequest)))
    return request


@st.composite
def possible(draw: st.DrawFn) -> pb.StylizeRequest:
    """A valid request, except perhaps for pictures that are too small: odd shapes and any combination of options."""
    pictures = st.builds(pb.Picture, data=st.sampled_from((*_PICTURES, *samples().values())))
    request = pb.StylizeRequest(
        content=draw(pictures),
        styles=[
            pb.Style(picture=draw(pictures), scale=draw(st.floats(0.1, 4))) for _ in range(draw(st.integers(1, 2)))
        ],
        options=pb.TransferOptions(
            image_size=draw(st.integers(1, 64)),
            iterations=draw(st.integers(3, 6)),
            scales=draw(st.integers(1, 3)),
            averaging=draw(st.sampled_from((0, 0.5))),
            normalize=draw(st.booleans()),
            content_weight=draw(st.sampled_from((0, 1, 1e12))),
            style_weight=draw(st.sampled_from((1e-12, 1, 1e12))),
            tv_weight=draw(st.sampled_from((0, 1))),
            laplacian_weight=draw(st.sampled_from((0, 1))),
            content_layers=[pb.LayerWeight(layer=draw(st.sampled_from(LAYERS[:6])))],
            style_layers=[pb.LayerWeight(layer=draw(st.sampled_from(LAYERS[:6])))],
            preview_every=draw(st.integers(0, 1)),
        ),
    )
    for message, name in (
        (request.output, "format"),
        *((request.options, name) for name in ("optimizer", "style_loss", "pooling", "padding", "color")),
    ):
        known = message.DESCRIPTOR.fields_by_name[name].enum_type.values_by_number
        setattr(message, name, draw(st.sampled_from(sorted(known))))
    for message, name in (
        *((request, name) for name in ("init_picture", "content_mask", "reference", "reference_mask")),
        *((style, "mask") for style in request.styles),
    ):
        if draw(st.booleans()) and (name != "reference_mask" or request.HasField("reference")):
            getattr(message, name).CopyFrom(draw(pictures))
    return request


@st.composite
def damaged_bytes(draw: st.DrawFn, good: bytes) -> bytes:
    """The bytes of a message with a few of them changed, and perhaps without their end."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1) | st.integers(0, 40))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)) | st.just(len(data)))])


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[grpc.Channel]:
    """A server with a real network, and with limits so low that every accepted job ends soon."""
    limits = {"max_image_size": 64, "max_iterations": 6, "max_styles": 2, "max_input_pixels": _MAX_PIXELS}
    server = Server(
        ServerConfig(address="127.0.0.1:0", data_dir=str(folder), max_request_bytes=200_000, grace=0, **limits)
    )
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    listening: Future[int] = Future()
    with ThreadPoolExecutor(1) as thread:
        stopped = thread.submit(loop.run_until_complete, server.run(stop, listening.set_result))
        try:
            with grpc.insecure_channel(f"127.0.0.1:{listening.result(_HANG_SECONDS)}") as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                while next(watch).status != health_pb2.HealthCheckResponse.SERVING:
                    pass
                watch.cancel()
                yield channel
        finally:
            loop.call_soon_threadsafe(stop.set)
            stopped.result(_HANG_SECONDS)
            loop.close()


def refusal(error: grpc.RpcError) -> str:
    """Check that a call was refused as the contract says, and return how."""
    status = rpc_status.from_call(error)
    if status is None and "larger than max" in error.details():
        # Far above the limit gRPC refuses by itself: a server need not hold what it will not take.
        return f"{error.code().name} by gRPC"
    assert status is not None, f"{error.code()}: {error.details()}"
    details = {detail.TypeName().rpartition(".")[2] for detail in status.details}
    reasons = set()
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reasons.add(info.reason)
    # Weights of 1e12 lead there.
    if reasons != {"LOSS_NOT_FINITE"}:
        assert details & _DOCUMENTED[error.code()], f"{error.code()}: {error.details()} {details}"
    return f"{error.code().name} {', '.join(sorted(reasons))}".strip()


def followed(events: list[pb.JobEvent]) -> str:
    """Check that a stream is whole, and return why the job stopped."""
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1]) == ("accepted", "completed")
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    [header] = [event.result_header for event in events if event.HasField("result_header")]
    data = b"".join(event.result_chunk.data for event in events)
    assert hashlib.sha256(data).hexdigest() == header.sha256
    if header.width * header.height <= _MAX_PIXELS:
        assert decode(data, max_pixels=_MAX_PIXELS).size == (header.width, header.height)
    return pb.StopReason.Name(events[-1].completed.stop_reason)


def stylized(stub: pb_grpc.StyleTransferServiceStub, request: pb.StylizeRequest) -> str:
    try:
        return followed([response.event for response in stub.Stylize(request, timeout=_HANG_SECONDS)])
    except grpc.RpcError as error:
        return refusal(error)


class TestRequests:
    @pytest.fixture
    def good(self, request_: pb.StylizeRequest) -> pb.StylizeRequest:
        request_.options.MergeFrom(pb.TransferOptions(iterations=3, preview_every=0))
        return request_

    @pytest.fixture
    def channel(self, good: pb.StylizeRequest, tmp_path: Path) -> Iterator[grpc.Channel]:
        """A channel to a server, which must still do its work after the test."""
        with serving(tmp_path) as channel:
            stub = pb_grpc.StyleTransferServiceStub(channel)
            # In place of the warm-up: a request with a deadline is judged by the throughput.
            assert stylized(stub, good) == "STOP_REASON_ITERATIONS"
            yield channel
            info = stub.GetServerInfo(pb.GetServerInfoRequest())
            assert (info.queued_jobs, info.running_jobs) == (0, 0)
            assert stylized(stub, good) == "STOP_REASON_ITERATIONS"

    def test_every_estimate_is_one_or_a_refusal(
        self, channel: grpc.Channel, good: pb.StylizeRequest, chaos: bool, chance: int
    ):
        stub, outcomes = pb_grpc.StyleTransferServiceStub(channel), Counter()

        def check(request: pb.StylizeRequest) -> None:
            try:
                answer = stub.Estimate(pb.EstimateRequest(stylize=request))
            except grpc.RpcError as error:
                outcomes[refusal(error)] += 1
            else:
                assert answer.estimate.peak_memory_bytes > 0
                outcomes["estimate"] += 1

        search(check, requests(good), examples=20_000 if chaos else 150, chance=chance)
        print(*outcomes.most_common(), sep="\n")
        assert {"estimate", "INVALID_ARGUMENT"} <= outcomes.keys()

    def test_every_stylisation_ends_with_a_picture_or_a_refusal(
        self, channel: grpc.Channel, good: pb.StylizeRequest, chaos: bool, chance: int
    ):
        stub, outcomes = pb_grpc.StyleTransferServiceStub(channel), Counter()

        def check(request: pb.StylizeRequest) -> None:
            outcomes[stylized(stub, request)] += 1

        search(check, possible() | requests(good), examples=2000 if chaos else 25, chance=chance)
        print(*outcomes.most_common(), sep="\n")
        assert {"STOP_REASON_ITERATIONS", "INVALID_ARGUMENT"} <= outcomes.keys()

    def test_damaged_messages_are_refused_or_mean_something_else(
        self, channel: grpc.Channel, good: pb.StylizeRequest, chaos: bool, chance: int
    ):
        good.content.data = good.styles[0].picture.data = _PICTURES[3]
        estimate, outcomes = channel.unary_unary(f"/{_SERVICE.full_name}/Estimate"), Counter()

        def check(data: bytes) -> None:
            try:
                estimate(data)
            except grpc.RpcError as error:
                outcomes[refusal(error)] += 1
            else:
                outcomes["estimate"] += 1

        good_bytes = pb.EstimateRequest(stylize=good).SerializeToString()
        search(check, damaged_bytes(good_bytes), examples=5000 if chaos else 100, chance=chance)
        print(*outcomes.most_common(), sep="\n")

    def test_every_other_call_is_answered_or_refused(self, channel: grpc.Channel, chaos: bool, chance: int):
        stub, outcomes = pb_grpc.StyleTransferServiceStub(channel), Counter()
        others = set(vars(StyleTransferServicer)) & set(_SERVICE.methods_by_name) - {"Stylize", "Estimate"}
        kinds = {GetMessageClass(_SERVICE.methods_by_name[name].input_type): name for name in sorted(others)}

        def check(request: Message) -> None:
            name = kinds[type(request)]
            try:
                answer = getattr(stub, name)(request, timeout=_HANG_SECONDS)
                outcomes[name, f"{len(list(answer))} events" if isinstance(answer, grpc.Call) else "answer"] += 1
            except grpc.RpcError as error:
                outcomes[name, refusal(error)] += 1

        search(check, st.one_of(*map(messages, kinds)), examples=2000 if chaos else 60, chance=chance)
        print(*outcomes.most_common(), sep="\n")
        assert {name for name, _ in outcomes} == others
