"""Real proxies between the client and its server, and what other servers answer in place of one."""

import asyncio
import http.server
import shutil
import socket
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest
import trustme
from click.testing import CliRunner
from grpc.aio import AioRpcError, Metadata
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_client import (
    AsyncStyleTransferClient,
    InternalError,
    RequestTooLargeError,
    StyleTransferClient,
    Tls,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from nst_client.cli import commands
from nst_client.errors import from_rpc_error
from nst_client.session import is_lost

LARGE = bytes(300_000)
SOON = 20.0
"""Seconds after which a test that waits has failed."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def nginx(target, tmp_path):
    """Return the target of a real nginx before the server. It takes requests of up to 100 kB."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    folders = "".join(
        f"{kind}_temp_path {tmp_path}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(f"""
        daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; worker_processes 1;
        events {{}}
        http {{
            access_log off; {folders}
            server {{
                listen 127.0.0.1:{port} http2; client_max_body_size 100k;
                location /nst.v1.StyleTransferService/ {{ grpc_pass grpc://{target}; }}
                location / {{ return 301 http://example.org/; }}
            }}
        }}
    """)
    with subprocess.Popen([program, "-c", tmp_path / "nginx.conf"], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + SOON
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
        process.terminate()


def calls(target):
    """Return every way to send a large request to a server, with either client."""

    def sync(act):
        with StyleTransferClient(target) as client:
            return act(client)

    def with_asyncio(act):
        async def run():
            async with AsyncStyleTransferClient(target) as client:
                await act(client)

        return asyncio.run(run())

    return [
        lambda: sync(lambda client: client.stylize(LARGE, LARGE)),
        lambda: sync(lambda client: client.estimate(LARGE, LARGE)),
        lambda: with_asyncio(lambda client: client.stylize(LARGE, LARGE)),
        lambda: with_asyncio(lambda client: client.estimate(LARGE, LARGE)),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_request_that_a_proxy_refuses_as_too_large_is_not_sent_again(nginx, servicer, number):
    with pytest.raises(RequestTooLargeError, match="413") as caught:
        calls(nginx)[number]()
    assert caught.value.size > len(LARGE) * 2
    assert (caught.value.http_status, caught.value.limit) == (413, None)
    assert str(caught.value.size) in str(caught.value)
    assert servicer.requests == []


def test_a_request_that_a_proxy_takes_goes_through(nginx, servicer, script):
    servicer.attempts = [script.job()]
    with StyleTransferClient(nginx) as client:
        assert client.stylize(b"small", b"small").data == b"the picture"
        with pytest.raises(UnsupportedError, match=r"301 \(Moved Permanently\)"):
            client.health()


def test_the_command_line_says_that_a_proxy_refuses_the_size(nginx, tmp_path):
    (tmp_path / "large.jpg").write_bytes(LARGE)
    arguments = ["--target", nginx, "stylize", *[str(tmp_path / "large.jpg")] * 2, "-o", str(tmp_path / "out.png")]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 2
    assert "is too large for a proxy in front of the server" in done.stderr


@pytest.mark.parametrize(
    ("code", "status", "kind", "lost"),
    [
        ("UNKNOWN", 413, RequestTooLargeError, False),
        ("INTERNAL", 400, UnsupportedError, False),
        ("UNKNOWN", 302, UnsupportedError, False),
        ("UNKNOWN", 414, UnsupportedError, False),
        ("UNKNOWN", 499, UnsupportedError, False),
        ("UNAUTHENTICATED", 401, UnauthenticatedError, False),
        ("UNIMPLEMENTED", 404, UnsupportedError, False),
        ("UNKNOWN", 408, InternalError, True),
        ("UNKNOWN", 500, InternalError, True),
        ("UNKNOWN", 520, InternalError, True),
        ("UNAVAILABLE", 429, UnavailableError, True),
        ("UNAVAILABLE", 502, UnavailableError, True),
        ("UNAVAILABLE", 503, UnavailableError, True),
    ],
)
def test_a_page_is_lost_only_if_another_try_may_get_another_answer(code, status, kind, lost):
    details = f"Received http2 header with status: {status}"
    error = from_rpc_error(AioRpcError(grpc.StatusCode[code], Metadata(), Metadata(), details=details), size=5)
    assert type(error) is kind
    assert is_lost(error) is lost
    assert f"HTTP status {status}" in error.message


@pytest.fixture(scope="module")
def ca():
    return trustme.CA()


@pytest.fixture
def listen(servicer, ca):
    """Start a server with a certificate for a name, or without one, and return its target."""
    servers = []

    def listen(name=None, *, client_ca=None):
        server = grpc.server(futures.ThreadPoolExecutor(2))
        pb_grpc.add_StyleTransferServiceServicer_to_server(servicer, server)
        if name is None:
            port = server.add_insecure_port("localhost:0")
        else:
            own = ca.issue_cert(name)
            pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
            port = server.add_secure_port(
                "localhost:0", grpc.ssl_server_credentials([pair], client_ca, client_ca is not None)
            )
        server.start()
        servers.append(server)
        return f"localhost:{port}"

    yield listen
    for server in servers:
        server.stop(None)


def test_why_there_is_no_connection_is_said_in_words(listen, ca):
    pem = ca.cert_pem.bytes()

    def message(target, tls=None):
        with StyleTransferClient(target, tls=tls) as client, pytest.raises(UnavailableError) as caught:
            client.info(timeout=SOON)
        return caught.value.message

    assert "the server does not use TLS, but this client does" in message(listen(), Tls(ca=pem))
    assert "the server's certificate is for another name" in message(listen("example.org"), Tls(ca=pem))
    assert "server_name (--server-name)" in message(listen("example.org"), Tls(ca=pem))
    assert "comes from no accepted authority; ca (--ca)" in message(listen("localhost"), Tls())
    assert "it may require TLS (--tls) or a client certificate" in message(listen("localhost"))
    assert "a client certificate (--certificate)" in message(listen("localhost", client_ca=pem), Tls(ca=pem))


def test_a_web_server_at_the_target_is_named_as_one():
    with http.server.ThreadingHTTPServer(("localhost", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = StyleTransferClient(f"localhost:{server.server_port}")
        with client, pytest.raises(UnavailableError, match="does not speak gRPC"):
            client.info(timeout=SOON)
        server.shutdown()


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
@pytest.mark.parametrize("use_token", [False, True])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(listen, monkeypatch, name, use_token):
    monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with StyleTransferClient(listen(), token="a-token" if use_token else None) as client:
        assert client.info(timeout=SOON).limits.max_image_size == 0
