from concurrent import futures

import grpc
import pytest
import trustme
from click.testing import CliRunner
from grpc_health.v1 import health_pb2_grpc
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_client import (
    AsyncStyleTransferClient,
    ConnectionOptionsError,
    PermissionDeniedError,
    QuotaExceededError,
    StyleTransferClient,
    Tls,
    UnavailableError,
)
from nst_client.cli import commands
from nst_client.security import channel_settings, is_loopback

TOKEN = "nst_a-token-of-this-test"


@pytest.fixture
def sent(servicer):
    """The authorization headers that the server gets."""
    return servicer.authorizations


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def files(ca, tmp_path):
    """The authority's certificate, and a client's with its key, by the names of their flags."""
    own = ca.issue_cert("client.example")
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "certificate", "key")}
    ca.cert_pem.write_to_path(paths["ca"])
    own.cert_chain_pems[0].write_to_path(paths["certificate"])
    own.private_key_pem.write_to_path(paths["key"])
    return paths


@pytest.fixture
def secure_target(servicer, ca):
    """Where a server serves `servicer` by TLS, to clients with a certificate; its own is for another name."""
    own = ca.issue_cert("nst.example")
    server = grpc.server(futures.ThreadPoolExecutor(8))
    pb_grpc.add_StyleTransferServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(servicer.health, server)
    credentials = grpc.ssl_server_credentials(
        [(own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())], ca.cert_pem.bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


LOOPBACK = [
    "localhost:50051",
    "localhost",
    "127.0.0.1:50051",
    "127.8.8.8:1",
    "[::1]:50051",
    "ipv4:127.0.0.1:50051",
    "ipv6:[::1]:50051",
    "dns:localhost:50051",
    "dns:///localhost:50051",
    "unix:/run/nst.sock",
    "unix-abstract:nst",
]
ELSEWHERE = [
    "nst.example:50051",
    "10.0.0.7:50051",
    "0.0.0.0:50051",
    "127.0.0.1.example:50051",
    "localhost.example:50051",
    "dns://192.0.2.1/localhost:50051",
    "ipv4:192.0.2.1:1,127.0.0.1:1",
    "ipv4:127.0.0.1:1,192.0.2.1:1",
    "xds:///localhost",
    "",
]


@pytest.mark.parametrize("target", LOOPBACK)
def test_a_target_on_this_machine_is_known_as_one_and_gets_the_token(target):
    assert is_loopback(target)
    assert channel_settings(target, tls=None, token=TOKEN, credentials=None).credentials is not None


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_token_never_leaves_the_machine_without_encryption(target):
    assert not is_loopback(target)
    for client in (StyleTransferClient, AsyncStyleTransferClient):
        with pytest.raises(ConnectionOptionsError, match="without encryption") as caught:
            client(target, token=TOKEN)
        assert TOKEN not in str(caught.value)


def test_the_token_goes_with_a_call_to_this_machine(target, sent):
    with StyleTransferClient(target, token=TOKEN) as client:
        client.info()
    assert sent == [f"Bearer {TOKEN}"]


async def test_the_token_goes_with_a_call_of_asyncio_too(target, sent):
    async with AsyncStyleTransferClient(target, token=TOKEN) as client:
        await client.info()
    assert sent == [f"Bearer {TOKEN}"]


def test_the_token_goes_through_a_socket_of_this_machine(servicer, sent, tmp_path):
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pb_grpc.add_StyleTransferServiceServicer_to_server(servicer, server)
    target = f"unix:{tmp_path}/s"
    server.add_insecure_port(target)
    server.start()
    try:
        with StyleTransferClient(target, token=TOKEN) as client:
            client.info()
    finally:
        server.stop(None).wait()
    assert sent == [f"Bearer {TOKEN}"]


def test_a_token_for_this_machine_does_not_go_through_a_proxy(target, sent, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with StyleTransferClient(target, token=TOKEN) as client:
        client.info()
    assert sent == [f"Bearer {TOKEN}"]


def test_tls_token_and_client_certificate_go_together(secure_target, files, sent):
    tls = Tls(**files, server_name="nst.example")
    with StyleTransferClient(secure_target, tls=tls, token=TOKEN) as client:
        client.info()
    assert sent == [f"Bearer {TOKEN}"]


async def test_tls_token_and_client_certificate_go_together_with_asyncio(secure_target, files, sent):
    tls = Tls(**{name: path.read_bytes() for name, path in files.items()}, server_name="nst.example")
    async with AsyncStyleTransferClient(secure_target, tls=tls, token=TOKEN) as client:
        await client.info()
    assert sent == [f"Bearer {TOKEN}"]


def test_a_certificate_for_another_name_is_not_trusted_and_gets_no_token(secure_target, files, sent):
    with StyleTransferClient(secure_target, tls=Tls(**files), token=TOKEN) as client, pytest.raises(UnavailableError):
        client.info()
    assert sent == []


@pytest.mark.parametrize("token", ["", "two words", "line\n", "\N{SNOWMAN}"])
def test_what_cannot_be_a_token_is_refused_without_being_quoted(token):
    with pytest.raises(ConnectionOptionsError) as caught:
        StyleTransferClient(token=token)
    assert not token or token not in str(caught.value)


def test_options_that_contradict_each_other_are_refused(files):
    secure = grpc.ssl_channel_credentials()
    with pytest.raises(ConnectionOptionsError, match="exclude each other"):
        StyleTransferClient(tls=Tls(), credentials=secure)
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(ConnectionOptionsError, match="opens itself"):
        StyleTransferClient(channel=channel, token=TOKEN)
    for name in ("certificate", "key"):
        with pytest.raises(ConnectionOptionsError, match="needs its"):
            StyleTransferClient(tls=Tls(**{name: files[name]}))


def test_files_that_are_missing_or_no_pem_are_named(files, tmp_path):
    with pytest.raises(ConnectionOptionsError, match=r"cannot read the file '.*missing.pem': No such file"):
        StyleTransferClient(tls=Tls(ca=tmp_path / "missing.pem"))
    files["ca"].write_text("no certificate")
    with pytest.raises(ConnectionOptionsError, match=r"'.*ca.pem' is neither a certificate nor a key in PEM"):
        StyleTransferClient(tls=Tls(ca=files["ca"]))


def test_a_private_key_is_not_shown():
    assert "secret" not in repr(Tls(certificate=b"public", key=b"secret"))


# --- Command line ----------------------------------------------------------------------------------------------------


def run(*arguments, **environment):
    return CliRunner(env=environment).invoke(commands, [str(argument) for argument in arguments])


def test_the_command_line_takes_the_token_from_a_flag_the_environment_or_a_file(target, sent, tmp_path):
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    for done in (
        run("--target", target, "--token", TOKEN, "info", "--json"),
        run("--target", target, "info", "--json", NST_TOKEN=TOKEN),
        run("--target", target, "--token-file", path, "info", "--json"),
        run("--target", target, "info", "--json", NST_TOKEN_FILE=str(path)),
    ):
        assert done.exit_code == 0, done.output
        assert TOKEN not in done.output
    assert sent == [f"Bearer {TOKEN}"] * 4


def test_the_command_line_connects_with_tls_by_flags_and_by_the_environment(secure_target, files):
    flags = [part for name, path in files.items() for part in (f"--{name}", path)]
    by_flags = run("--target", secure_target, *flags, "--server-name", "nst.example", "info", "--json")
    by_environment = run(
        "info",
        "--json",
        NST_TARGET=secure_target,
        NST_CA=str(files["ca"]),
        NST_CLIENT_CERTIFICATE=str(files["certificate"]),
        NST_CLIENT_KEY=str(files["key"]),
        NST_SERVER_NAME="nst.example",
    )
    assert (by_flags.exit_code, by_environment.exit_code) == (0, 0), by_flags.output + by_environment.output


def test_the_command_line_sends_no_token_to_another_machine_without_tls_and_does_not_echo_it():
    done = run("--target", "nst.example:50051", "--token", TOKEN, "info")
    assert done.exit_code == 2
    assert "without encryption" in done.stderr
    assert TOKEN not in done.output


def test_no_tls_excludes_the_flags_that_need_it(files):
    done = run("--no-tls", "--ca", files["ca"], "info")
    assert done.exit_code == 2
    assert "--no-tls excludes --ca" in done.stderr


def test_a_token_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    done = run("--token-file", path, "info")
    assert done.exit_code == 2
    assert f"{path} cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("code", "reason", "retry_after", "exit_code"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", None, 7),
        (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", None, 7),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", None, 2),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", 1.0, 3),
    ],
)
def test_each_refusal_has_its_exit_code(
    *, target, servicer, failure, pictures, tmp_path, code, reason, retry_after, exit_code
):
    servicer.attempts = [[failure(code, "refused", reason=reason, retry_after=retry_after)]]
    done = run(
        "--target", target, "stylize", pictures[0], pictures[1], "-o", tmp_path / "out.png", "--retries", "0", "--quiet"
    )
    assert done.exit_code == exit_code
    assert "Error: refused" in done.stderr


@pytest.mark.usefixtures("no_jitter")
def test_a_quota_that_is_free_later_is_tried_again_and_one_that_never_is_not(
    client, servicer, script, failure, pictures
):
    exceeded = {"code": grpc.StatusCode.RESOURCE_EXHAUSTED, "reason": "QUOTA_EXCEEDED"}
    servicer.attempts = [[failure(**exceeded, retry_after=0.01)], script.job(b"the picture")]
    assert client.stylize(pictures[0], pictures[1]).data == b"the picture"
    metadata = {"quota": "pixels", "asked": "200", "accepted": "100"}
    servicer.attempts = [[failure(**exceeded, metadata=metadata)]]
    with pytest.raises(QuotaExceededError) as caught:
        client.stylize(pictures[0], pictures[1])
    assert (caught.value.quota, caught.value.asked, caught.value.accepted) == ("pixels", 200, 100)


def test_a_refused_permission_is_an_error_of_its_own(client, servicer, failure, pictures):
    servicer.attempts = [[failure(grpc.StatusCode.PERMISSION_DENIED, reason="NOT_PERMITTED")]]
    with pytest.raises(PermissionDeniedError):
        client.stylize(pictures[0], pictures[1])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("localhost:65536", "no valid port, expected is HOST:PORT with a port from 1 to 65535"),
        ("localhost:115587", "no valid port"),
        ("dns:///nst.example:99999999999999999999", "no valid port"),
        ("ipv4:127.0.0.1:70000,127.0.0.1:1", "no valid port"),
        ("[::1]:70000", "no valid port"),
        ("localhost:0", "no valid port"),
        ("localhost:-1", "no valid port"),
        ("localhost:http", "no valid port"),
        ("localhost:", "no valid port"),
        ("", "names no server"),
        ("dns:///", "names no server"),
        ("http://localhost:50051", "is a URL, expected is HOST:PORT"),
        ("https://nst.example", "is a URL"),
        ("grpc://nst.example:1", "is a URL"),
    ],
)
@pytest.mark.parametrize("client", [StyleTransferClient, AsyncStyleTransferClient])
def test_a_target_that_cannot_be_is_refused_by_name(client, target, message):
    with pytest.raises(ConnectionOptionsError, match=message) as caught:
        client(target)
    assert repr(target) in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        *("localhost", "nst.example:443", "[::1]:65535", "[::1]", "::1", "2001:db8::1", "dns:///localhost:1"),
        *("dns://8.8.8.8/nst.example:1", "ipv6:[::1]:1", "unix:/run/nst.sock", "unix-abstract:nst:x", "xds:///nst"),
    ],
)
def test_every_form_of_a_target_that_grpc_knows_is_accepted(target):
    assert channel_settings(target, tls=None, token=None, credentials=None).credentials is None


def test_a_token_file_may_begin_with_a_byte_order_mark(target, sent, tmp_path):
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf" + TOKEN.encode() + b"\r\n")
    done = CliRunner().invoke(commands, ["--target", target, "--token-file", str(tmp_path / "token"), "info"])
    assert done.exit_code == 0, done.output
    assert sent == [f"Bearer {TOKEN}"]


def test_the_home_directory_may_be_named_in_a_variable(target, sent, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text(TOKEN)
    done = CliRunner(env={"NST_TOKEN_FILE": "~/token"}).invoke(commands, ["--target", target, "info"])
    assert done.exit_code == 0, done.output
    assert sent == [f"Bearer {TOKEN}"]
