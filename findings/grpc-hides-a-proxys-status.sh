#!/usr/bin/env bash
# A proxy that refuses a large request with an HTTP status: unary calls see the status, streaming calls may not.
#
# Guess: a proxy that answers a gRPC call with a page, such as 413 with text/html, gives the caller the same error from
# every kind of call: the HTTP status in the details, and a code that follows from it.
# What happens: proxies answer before the request is complete and then reset the stream, as RFC 9113 (8.1) allows. A
# unary call of grpc.aio gets UNKNOWN with "Received http2 header with status: 413". A call whose answer is a stream gets
# INTERNAL "Stream removed" without the status: the same code as for a connection that broke, so that a client that
# connects again sends the same large request again and again.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME http_proxy https_proxy grpc_proxy
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3 h2==4.3.0
cat > proxy.py <<'PYTHON'
import asyncio
import collections
import sys

import grpc
import h2.config
import h2.connection
import h2.events

CALLS = 20


async def refuse(reader, writer):
    """Answer each stream with 413 and a page as soon as its headers are there, and reset it."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    connection.initiate_connection()
    writer.write(connection.data_to_send())
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                page = b"<html>413 Request Entity Too Large</html>"
                headers = [(":status", "413"), ("content-type", "text/html"), ("content-length", str(len(page)))]
                connection.send_headers(event.stream_id, headers)
                connection.send_data(event.stream_id, page, end_stream=True)
                connection.reset_stream(event.stream_id, 0)
        writer.write(connection.data_to_send())
    writer.close()


async def outcome(call):
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return "OK"


async def outcomes():
    """Return the outcomes of all calls by the kind of the call."""
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for kind in ("unary_unary", "unary_stream"):
            call = getattr(channel, kind)("/test.Service/Method")
            found[kind] = collections.Counter([await outcome(call(bytes(1 << 20))) for _ in range(CALLS)])
            print(kind, dict(found[kind]))
    await asyncio.sleep(0.5)
    server.close()
    return found


print("grpcio", grpc.__version__)
found = asyncio.run(outcomes())
hidden = sum(count for text, count in found["unary_stream"].items() if text.startswith("INTERNAL") and "413" not in text)
told = sum(count for text, count in found["unary_unary"].items() if text.startswith("UNKNOWN") and "413" in text)
sys.exit((told, hidden) != (CALLS, CALLS))
PYTHON
environment/bin/python proxy.py
