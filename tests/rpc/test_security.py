"""Access: connections, callers, the owners of jobs, and the details of errors that reach clients."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
import trustme
from click.testing import CliRunner
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_client import AsyncStyleTransferClient, Tls, UnavailableError
from nst_service import runtime as runtime_module
from nst_service.cli import main
from nst_service.config import ServerConfig
from nst_service.engine.optim.transfer import Iterate
from nst_service.jobs import run as run_module
from nst_service.reloaded import SettingError
from nst_service.server import Server
from nst_service.tokens import format_entry, make_token

pytestmark = pytest.mark.usefixtures("quick_start")

_HANG_SECONDS = 60
"""Seconds after which a test counts as hung. No test measures time."""
_ENDLESS = 5000
"""Iterations that no test waits for."""
_SERVING = health_pb2.HealthCheckResponse.SERVING


@contextlib.asynccontextmanager
async def serving(**settings: object) -> AsyncIterator[SimpleNamespace]:
    """Run a server, and yield it and its port when it accepts jobs."""
    server = Server(ServerConfig(address="127.0.0.1:0", **settings))
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    ready = asyncio.Event()
    start = server.scheduler.start

    async def start_and_tell() -> None:
        await start()
        ready.set()

    server.scheduler.start = start_and_tell  # type: ignore[method-assign]
    stopped = asyncio.create_task(server.run(stop, listening.set_result))
    try:
        async with asyncio.timeout(_HANG_SECONDS):
            port = await listening
            await ready.wait()
            yield SimpleNamespace(server=server, port=port, target=f"localhost:{port}")
    finally:
        stop.set()
        await asyncio.wait_for(stopped, _HANG_SECONDS)


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


class Identity:
    """A certificate and its key, in files that can be replaced."""

    def __init__(self, folder: Path, certificate: trustme.LeafCert):
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        self.replace(certificate)

    def replace(self, certificate: trustme.LeafCert) -> None:
        chain = b"".join(part.bytes() for part in certificate.cert_chain_pems)
        for path, data in ((self.certificate, chain), (self.key, certificate.private_key_pem.bytes())):
            self.write(path, data)

    @staticmethod
    def write(path: Path, data: bytes) -> None:
        beside = path.with_name("beside")
        beside.write_bytes(data)
        beside.replace(path)

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_certificate": str(self.certificate), "tls_key": str(self.key)}


@pytest.fixture
def identity(tmp_path: Path, ca: trustme.CA) -> Identity:
    return Identity(tmp_path, ca.issue_cert("localhost", "127.0.0.1"))


@pytest.fixture
def ca_file(tmp_path: Path, ca: trustme.CA) -> Path:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return path


def tls(ca: trustme.CA, certificate: trustme.LeafCert | None = None) -> Tls:
    """Trust an authority, and show a certificate."""
    if certificate is None:
        return Tls(ca=ca.cert_pem.bytes())
    return Tls(
        ca=ca.cert_pem.bytes(),
        certificate=certificate.cert_chain_pems[0].bytes(),
        key=certificate.private_key_pem.bytes(),
    )


async def shown_by(port: int) -> str:
    """Return the certificate that a new connection sees."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))


async def test_a_picture_comes_back_over_tls(identity: Identity, ca: trustme.CA, content_png: bytes, style_png: bytes):
    from nst_client import TransferOptions

    async with (
        serving(**identity.settings) as service,
        AsyncStyleTransferClient(service.target, tls=tls(ca)) as client,
    ):
        options = TransferOptions(iterations=5, image_size=48)
        result = await client.stylize(content_png, style_png, options=options)
    assert (result.width, result.height) == (48, 37)


async def test_a_client_without_tls_gets_nothing_from_a_server_with_it(identity: Identity):
    async with serving(**identity.settings) as service, AsyncStyleTransferClient(service.target) as client:
        with pytest.raises(UnavailableError):
            await client.health()


async def test_a_client_that_does_not_trust_the_authority_does_not_talk(identity: Identity):
    async with (
        serving(**identity.settings) as service,
        AsyncStyleTransferClient(service.target, tls=tls(trustme.CA())) as client,
    ):
        with pytest.raises(UnavailableError):
            await client.health()


async def test_new_connections_see_a_new_certificate_and_old_ones_go_on(identity: Identity, ca: trustme.CA):
    async with (
        serving(**identity.settings) as service,
        AsyncStyleTransferClient(service.target, tls=tls(ca)) as client,
    ):
        await client.info()
        before = await shown_by(service.port)
        identity.replace(ca.issue_cert("localhost", "127.0.0.1"))
        after = await shown_by(service.port)
        assert after != before
        assert after.strip() == identity.certificate.read_text().strip()
        await client.info()


async def test_a_certificate_without_its_key_changes_nothing_until_the_key_follows(
    identity: Identity, ca: trustme.CA, caplog: pytest.LogCaptureFixture
):
    renewed = ca.issue_cert("localhost", "127.0.0.1")
    async with serving(**identity.settings) as service:
        before = await shown_by(service.port)
        identity.write(identity.certificate, renewed.cert_chain_pems[0].bytes())
        assert await shown_by(service.port) == before
        assert "are not a certificate and its unencrypted private key" in caplog.text
        identity.write(identity.key, renewed.private_key_pem.bytes())
        assert await shown_by(service.port) != before


async def test_a_server_that_wants_certificates_serves_only_those_of_its_authority(
    identity: Identity, ca: trustme.CA, ca_file: Path
):
    stranger = trustme.CA()
    async with serving(**identity.settings, tls_client_ca=str(ca_file)) as service:
        async with AsyncStyleTransferClient(service.target, tls=tls(ca, ca.issue_cert("shop.example"))) as client:
            await client.info()
        for refused in (tls(ca), tls(ca, stranger.issue_cert("shop.example"))):
            async with AsyncStyleTransferClient(service.target, tls=refused) as client:
                with pytest.raises(UnavailableError):
                    await client.health()


async def test_the_authority_of_clients_can_be_replaced(identity: Identity, ca: trustme.CA, ca_file: Path):
    other = trustme.CA()
    async with serving(**identity.settings, tls_client_ca=str(ca_file)) as service:
        Identity.write(ca_file, other.cert_pem.bytes())
        async with AsyncStyleTransferClient(service.target, tls=tls(ca, other.issue_cert("shop.example"))) as client:
            await client.info()
        async with AsyncStyleTransferClient(service.target, tls=tls(ca, ca.issue_cert("shop.example"))) as client:
            with pytest.raises(UnavailableError):
                await client.info()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tls_key": ""}, "TLS needs both tls_certificate and tls_key"),
        ({"tls_certificate": ""}, "TLS needs both"),
        ({"tls_certificate": "", "tls_key": "", "tls_client_ca": "ca.pem"}, "tls_client_ca needs TLS"),
        ({"tls_certificate": "missing.pem"}, "missing.pem cannot be read: No such file"),
        ({"tls_client_ca": __file__}, "contains no certificate of an authority"),
        ({"tls_key": __file__}, "are not a certificate and its unencrypted private key"),
        ({"tokens": "missing.toml"}, "missing.toml cannot be read"),
    ],
)
def test_a_server_does_not_start_with_files_that_cannot_be_used(
    identity: Identity, changes: dict[str, str], message: str
):
    with pytest.raises(SettingError, match=message):
        Server(ServerConfig(address="127.0.0.1:0", **identity.settings | changes))


def test_a_server_that_others_could_reach_without_tls_does_not_start_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(runtime_module, "load_weights", lambda *_: pytest.fail("it must not come so far"))
    done = CliRunner().invoke(main, ["--address", "0.0.0.0:0"])
    assert done.exit_code == 1
    assert "NST_INSECURE=1" in done.stderr


@pytest.mark.parametrize("settings", [{"insecure": True}, {}])
def test_a_server_that_others_can_reach_takes_tls_or_an_explicit_choice(
    identity: Identity, settings: dict[str, bool], caplog: pytest.LogCaptureFixture
):
    Server(ServerConfig(address="0.0.0.0:0", **(settings or identity.settings)))
    assert "neither tokens nor tls_client_ca is set" in caplog.text


# --- Tokens, owners and quotas ---------------------------------------------------------------------------------------


class Tokens:
    """A file of tokens, and channels that send one."""

    def __init__(self, path: Path):
        self.path = path
        self.path.write_text("")
        self._made: dict[str, str] = {}

    def add(self, owner: str, **quotas: int) -> str:
        token = make_token()
        with self.path.open("a") as file:
            file.write(format_entry(token, owner, quotas))
        return token


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    return Tokens(tmp_path / "tokens.toml")


@contextlib.asynccontextmanager
async def calling(port: int, *headers: tuple[str, str], token: str | None = None) -> AsyncIterator[SimpleNamespace]:
    """Yield the stub of a channel, and the headers for its calls."""
    metadata = [*headers, *([("authorization", f"Bearer {token}")] if token else [])]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield SimpleNamespace(channel=channel, stub=pb_grpc.StyleTransferServiceStub(channel), metadata=metadata)


async def ended(call: object) -> None:
    if hasattr(call, "read"):
        while await call.read() is not grpc.aio.EOF:
            pass
    else:
        await call


async def failed(call: object) -> tuple[grpc.StatusCode, str, dict[str, Message]]:
    """Return the status of a call that fails, and its details by the name of their type."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ended(call)
    status = rpc_status.from_call(caught.value)
    details: dict[str, Message] = {}
    for packed in status.details if status else ():
        detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        packed.Unpack(detail)
        details[type(detail).__name__] = detail
    return caught.value.code(), caught.value.details(), details


async def read_until(call: object, kind: str) -> pb.JobEvent:
    while (event := (await call.read()).event).WhichOneof("event") != kind:
        pass
    return event


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer nst_guessed")],
        [("authorization", "Bearer ")],
        [("authorization", "Basic bm9ib2R5")],
        [("authorization", "{right}")],
        [("authorization", "Bearer {right}"), ("authorization", "Bearer {right}")],
        [("x-authorization", "Bearer {right}")],
    ],
)
async def test_without_a_token_that_is_accepted_every_method_but_health_is_refused(
    tokens: Tokens, request_: pb.StylizeRequest, headers: list[tuple[str, str]]
):
    right = tokens.add("ann")
    headers = [(key, value.format(right=right)) for key, value in headers]
    async with serving(tokens=str(tokens.path)) as service, calling(service.port, *headers) as caller:
        # Nothing is sent: grpc.aio reports its own trouble where a call ends while it sends.
        reflected = reflection_pb2_grpc.ServerReflectionStub(caller.channel).ServerReflectionInfo(
            metadata=caller.metadata
        )
        calls = [
            caller.stub.Stylize(request_, metadata=caller.metadata),
            caller.stub.CancelJob(pb.CancelJobRequest(job_id="any"), metadata=caller.metadata),
            caller.stub.Estimate(pb.EstimateRequest(stylize=request_), metadata=caller.metadata),
            caller.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=caller.metadata),
            caller.channel.unary_unary("/nst.v1.StyleTransferService/Unknown")(b"", metadata=caller.metadata),
            reflected,
        ]
        for call in calls:
            code, message, details = await failed(call)
            assert code is grpc.StatusCode.UNAUTHENTICATED, message
            assert details["ErrorInfo"].reason == "UNAUTHENTICATED"
            assert right not in message
        health = await health_pb2_grpc.HealthStub(caller.channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == _SERVING
        assert service.server.scheduler.views.running_jobs == 0


async def test_with_its_token_a_caller_is_served_and_sees_the_services(tokens: Tokens, request_: pb.StylizeRequest):
    token = tokens.add("ann")
    async with serving(tokens=str(tokens.path)) as service, calling(service.port, token=token) as caller:
        assert (await read_until(caller.stub.Stylize(request_, metadata=caller.metadata), "completed")).sequence
        reflected = reflection_pb2_grpc.ServerReflectionStub(caller.channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=caller.metadata
        )
        assert (await reflected.read()).list_services_response.service


async def test_tokens_are_added_and_taken_away_while_the_server_runs(tokens: Tokens):
    first = tokens.add("ann")
    async with serving(tokens=str(tokens.path)) as service:
        tokens.path.unlink()
        second = tokens.add("ann")
        async with calling(service.port, token=first) as caller:
            call = caller.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=caller.metadata)
            assert (await failed(call))[0] is grpc.StatusCode.UNAUTHENTICATED
        async with calling(service.port, token=second) as caller:
            await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=caller.metadata)


async def test_a_job_of_another_owner_is_as_unknown_as_one_that_never_was(tokens: Tokens, request_: pb.StylizeRequest):
    ann, ann_again, bob = tokens.add("ann"), tokens.add("ann"), tokens.add("bob")
    request_.options.iterations = _ENDLESS
    async with (
        serving(tokens=str(tokens.path)) as service,
        calling(service.port, token=ann) as first,
        calling(service.port, token=ann_again) as again,
        calling(service.port, token=bob) as other,
    ):

        async def cancel(caller: SimpleNamespace, job_id: str) -> pb.CancelJobResponse:
            return await caller.stub.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=caller.metadata)

        call = first.stub.Stylize(request_, metadata=first.metadata)
        job_id = (await read_until(call, "accepted")).accepted.job_id
        await read_until(call, "progress")
        never = await failed(cancel(other, "0" * len(job_id)))
        for _ in range(2):
            code, message, details = await failed(cancel(other, job_id))
            assert (code, message) == never[:2] == (grpc.StatusCode.NOT_FOUND, "no job has this id")
            assert details.keys() == never[2].keys()
            # Its owner ends it, and it stays unknown to the other.
            assert (await cancel(again, job_id)).state in (pb.JOB_STATE_RUNNING, pb.JOB_STATE_CANCELLED)
            with contextlib.suppress(AttributeError):
                await read_until(call, "completed")


async def test_with_certificates_and_no_tokens_jobs_belong_to_the_name_in_the_certificate(
    identity: Identity, ca: trustme.CA, ca_file: Path, request_: pb.StylizeRequest
):
    from nst_client import JobNotFoundError

    def credentials(name: str) -> grpc.ChannelCredentials:
        return tls(ca, ca.issue_cert(name)).credentials()

    request_.options.iterations = _ENDLESS
    async with (
        serving(**identity.settings, tls_client_ca=str(ca_file)) as service,
        grpc.aio.secure_channel(service.target, credentials("ann.example")) as channel,
        AsyncStyleTransferClient(service.target, credentials=credentials("bob.example")) as other,
        AsyncStyleTransferClient(service.target, credentials=credentials("ann.example")) as renewed,
    ):
        call = pb_grpc.StyleTransferServiceStub(channel).Stylize(request_)
        job_id = (await read_until(call, "accepted")).accepted.job_id
        with pytest.raises(JobNotFoundError):
            await other.cancel(job_id)
        await renewed.cancel(job_id)


async def test_an_owner_has_so_many_jobs_at_once_waiting_ones_included_and_another_when_one_has_ended(
    tokens: Tokens, request_: pb.StylizeRequest
):
    ann, bob = tokens.add("ann", jobs=2), tokens.add("bob", jobs=2)
    request_.options.iterations = _ENDLESS
    async with (
        serving(tokens=str(tokens.path), max_running=1) as service,
        calling(service.port, token=ann) as first,
        calling(service.port, token=bob) as other,
    ):
        calls = [first.stub.Stylize(request_, metadata=first.metadata) for _ in range(2)]
        for call in calls:
            await read_until(call, "accepted")
        code, message, details = await failed(first.stub.Stylize(request_, metadata=first.metadata))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert message == "quota exceeded: 3 jobs requested, at most 2 accepted"
        assert details["ErrorInfo"].reason == "QUOTA_EXCEEDED"
        assert dict(details["ErrorInfo"].metadata) == {"quota": "jobs", "asked": "3", "accepted": "2"}
        assert details["QuotaFailure"].violations[0].subject == "jobs of ann"
        assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
        following = other.stub.Stylize(request_, metadata=other.metadata)
        await read_until(following, "accepted")
        for call in calls:
            call.cancel()
        scheduler = service.server.scheduler
        while scheduler._table.held("ann", scheduler._pool.running):
            await asyncio.sleep(0.01)
        await read_until(first.stub.Stylize(request_, metadata=first.metadata), "accepted")
        following.cancel()


async def test_requests_that_come_all_at_once_do_not_slip_past_the_quota(tokens: Tokens, request_: pb.StylizeRequest):
    token = tokens.add("ann", jobs=1)
    request_.options.iterations = _ENDLESS

    async def outcome(call: object) -> grpc.StatusCode:
        try:
            await read_until(call, "accepted")
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async with serving(tokens=str(tokens.path)) as service, calling(service.port, token=token) as caller:
        calls = [caller.stub.Stylize(request_, metadata=caller.metadata) for _ in range(6)]
        outcomes = await asyncio.gather(*map(outcome, calls))
    assert sorted(outcomes, key=str) == [grpc.StatusCode.OK] + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 5


@pytest.mark.parametrize("quotas", [{"pixels": 100}, {"iterations": 4}, {"pixels": 100, "iterations": 4}])
async def test_a_job_larger_than_the_quota_is_refused_by_its_name_and_so_is_its_estimate(
    tokens: Tokens, request_: pb.StylizeRequest, quotas: dict[str, int]
):
    token = tokens.add("ann", **quotas)
    asked = {"pixels": 48 * 37, "iterations": 5}
    async with serving(tokens=str(tokens.path)) as service, calling(service.port, token=token) as caller:
        for call in (
            caller.stub.Stylize(request_, metadata=caller.metadata),
            caller.stub.Estimate(pb.EstimateRequest(stylize=request_), metadata=caller.metadata),
        ):
            code, _, details = await failed(call)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "RetryInfo" not in details
            assert [(each.subject, each.description) for each in details["QuotaFailure"].violations] == [
                (f"{name} of ann", f"{asked[name]} {name} requested, at most {accepted} accepted")
                for name, accepted in quotas.items()
            ]


async def test_a_token_whose_quota_is_no_jobs_may_look_and_not_stylise(tokens: Tokens, request_: pb.StylizeRequest):
    token = tokens.add("ann", jobs=0)
    async with serving(tokens=str(tokens.path)) as service, calling(service.port, token=token) as caller:
        code, _, details = await failed(caller.stub.Stylize(request_, metadata=caller.metadata))
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert details["ErrorInfo"].reason == "NOT_PERMITTED"
        await caller.stub.GetServerInfo(pb.GetServerInfoRequest(), metadata=caller.metadata)


async def test_nothing_that_is_logged_holds_a_token(
    tokens: Tokens, request_: pb.StylizeRequest, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    token, wrong = tokens.add("ann"), make_token()
    async with serving(tokens=str(tokens.path)) as service:
        for sent in (token, wrong):
            async with calling(service.port, token=sent) as caller:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await read_until(caller.stub.Stylize(request_, metadata=caller.metadata), "completed")
    assert token not in caplog.text
    assert wrong not in caplog.text


# --- What a client learns ---------------------------------------------------------------------------------------------

_SECRET = "/srv/secret/path: libsecret said no"


async def test_an_unexpected_error_reaches_the_client_as_an_id_and_the_log_whole(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(_SECRET)

    async with serving() as service, calling(service.port) as caller:
        for method in ("submit", "estimate", "cancel"):
            monkeypatch.setattr(service.server.scheduler, method, fail)
        monkeypatch.setattr(type(service.server.scheduler.views), "devices", property(fail))
        for call in (
            caller.stub.Stylize(request_),
            caller.stub.Estimate(pb.EstimateRequest(stylize=request_)),
            caller.stub.CancelJob(pb.CancelJobRequest(job_id="any")),
            caller.stub.GetServerInfo(pb.GetServerInfoRequest()),
        ):
            code, message, details = await failed(call)
            assert code is grpc.StatusCode.INTERNAL
            incident = details["ErrorInfo"].metadata["incident"]
            assert message == f"internal error; the log of the server has it as incident {incident}"
            assert "secret" not in str(details)
            assert f"incident {incident}" in caplog.text
            assert _SECRET in caplog.text
        monkeypatch.undo()


async def test_a_job_that_fails_unexpectedly_tells_the_client_nothing_that_the_log_does_not_have_by_its_id(
    request_: pb.StylizeRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object) -> Iterator[Iterate]:
        raise RuntimeError(_SECRET)
        yield

    monkeypatch.setattr(run_module, "transfer", fail)
    async with serving() as service, calling(service.port) as caller:
        call = caller.stub.Stylize(request_)
        job_id = (await read_until(call, "accepted")).accepted.job_id
        code, message, details = await failed(call)
    assert code is grpc.StatusCode.INTERNAL
    assert "secret" not in message + str(details)
    assert job_id in caplog.text
    assert _SECRET in caplog.text


@pytest.mark.parametrize("method", ["Stylize", "Estimate", "CancelJob", "GetServerInfo"])
async def test_bytes_that_are_no_request_are_refused_without_quoting_any_library(method: str):
    path = f"/nst.v1.StyleTransferService/{method}"
    async with serving() as service, calling(service.port) as caller:
        make = caller.channel.unary_stream if method == "Stylize" else caller.channel.unary_unary
        code, message, details = await failed(make(path)(b"\xff\xff\xff"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "the request is not a valid message for this method"
    assert details["ErrorInfo"].reason == "MALFORMED_REQUEST"


async def test_a_request_that_would_grow_when_it_is_read_is_refused():
    request = pb.EstimateRequest(stylize=pb.StylizeRequest(content=pb.Picture(data=bytes(2**20))))
    async with (
        serving() as service,
        grpc.aio.insecure_channel(service.target, compression=grpc.Compression.Gzip) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await pb_grpc.StyleTransferServiceStub(channel).Estimate(request)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_that_is_wrong_in_many_ways_still_gets_its_answer(request_: pb.StylizeRequest):
    for number in range(500):
        request_.options.style_layers.add(layer=f"\N{SNOWMAN}{number}" + "\N{SNOWMAN}" * 100)
    async with serving() as service, calling(service.port) as caller:
        code, _, details = await failed(caller.stub.Stylize(request_))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details["BadRequest"].field_violations[0].field == "options.style_layers"


async def test_an_id_of_any_length_is_answered_as_unknown():
    async with serving() as service, calling(service.port) as caller:
        code, _, details = await failed(caller.stub.CancelJob(pb.CancelJobRequest(job_id="x" * 100_000)))
    assert code is grpc.StatusCode.NOT_FOUND
    assert re.fullmatch("x+", details["ResourceInfo"].resource_name)


async def test_connections_over_the_limit_are_closed_and_served_when_there_is_room_again():
    @contextlib.asynccontextmanager
    async def connection(port: int) -> AsyncIterator[pb_grpc.StyleTransferServiceStub]:
        # Channels of one process share connections unless told otherwise.
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield pb_grpc.StyleTransferServiceStub(channel)

    info = pb.GetServerInfoRequest()
    async with serving(max_connections=1) as service:
        async with connection(service.port) as first:
            await first.GetServerInfo(info)
            async with connection(service.port) as second:
                code, _, _ = await failed(second.GetServerInfo(info))
                assert code is grpc.StatusCode.UNAVAILABLE
            await first.GetServerInfo(info)
        served = False
        while not served:
            # The server may not have seen yet that the first has left.
            with contextlib.suppress(grpc.aio.AioRpcError):
                async with connection(service.port) as third:
                    served = bool(await third.GetServerInfo(info))


async def test_a_call_over_the_limit_of_its_connection_is_served_after_another(request_: pb.StylizeRequest):
    request_.options.iterations = _ENDLESS
    async with serving(max_streams=1) as service, calling(service.port) as caller:
        endless = caller.stub.Stylize(request_)
        await read_until(endless, "progress")
        following = caller.stub.GetServerInfo(pb.GetServerInfoRequest())
        await read_until(endless, "progress")
        assert not following.done()
        endless.cancel()
        assert (await following).version
