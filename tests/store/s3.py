"""A real S3 interface on the loopback interface, which the tests start, stop and start again."""

import logging
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem


class S3:
    """A server for S3. Its objects survive while it is stopped."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", port=self.port, verbose=False)
        self._server.start()


def run_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Start a server, and make it the one that s3fs finds."""
    # It logs every request.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3()
    # A file system that another test has made knows the port of another server.
    S3FileSystem.clear_instance_cache()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.endpoint,
        # Refusals of the connection are told at once.
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()
