#!/usr/bin/env bash
# A client interceptor of grpc.aio that is of two kinds intercepts calls of one kind only, and nothing says so.
#
# Guess: a class that derives from UnaryUnaryClientInterceptor and from UnaryStreamClientInterceptor, and implements
# both, intercepts both kinds of calls, as it does in a channel for threads.
# What happens: the channel of grpc.aio registers it for the first kind that it tests for. Calls of the other kind pass
# it by without an error: a token or a trace that it adds is missing there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME http_proxy https_proxy grpc_proxy
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3
cat > intercept.py <<'PYTHON'
import asyncio
import sys

import grpc

aio_seen, thread_seen = [], []


class Both(grpc.aio.UnaryUnaryClientInterceptor, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_unary(self, continuation, details, request):
        aio_seen.append("unary_unary")
        return await continuation(details, request)

    async def intercept_unary_stream(self, continuation, details, request):
        aio_seen.append("unary_stream")
        return await continuation(details, request)


class ThreadBoth(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    def intercept_unary_unary(self, continuation, details, request):
        thread_seen.append("unary_unary")
        return continuation(details, request)

    def intercept_unary_stream(self, continuation, details, request):
        thread_seen.append("unary_stream")
        return continuation(details, request)


def with_threads(target):
    with grpc.insecure_channel(target) as plain:
        channel = grpc.intercept_channel(plain, ThreadBoth())
        channel.unary_unary("/test.Service/One")(b"")
        list(channel.unary_stream("/test.Service/Stream")(b""))


async def main():
    async def one(request, context):
        return b""

    async def stream(request, context):
        yield b""

    server = grpc.aio.server()
    methods = {
        "One": grpc.unary_unary_rpc_method_handler(one),
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with grpc.aio.insecure_channel(target, interceptors=[Both()]) as channel:
        await channel.unary_unary("/test.Service/One")(b"")
        async for _ in channel.unary_stream("/test.Service/Stream")(b""):
            pass
    await asyncio.to_thread(with_threads, target)
    await server.stop(None)


print("grpcio", grpc.__version__)
asyncio.run(main())
print("grpc.aio intercepted", aio_seen)
print("threads intercepted", thread_seen)
sys.exit((aio_seen, thread_seen) != (["unary_unary"], ["unary_unary", "unary_stream"]))
PYTHON
environment/bin/python intercept.py
