#!/usr/bin/env bash
# grpc.aio keeps the bytes of a request, and the message decoded from them, until the call ends.
#
# Guess: once the handler of a call with one request has deleted its references, the request is garbage. A server whose
# handler then streams for minutes holds nothing of it.
# What happens: the coroutine of gRPC that awaits the handler holds two references itself, one to the received bytes and
# one to what the deserializer returned. Neither is released before the handler returns. A deserializer whose result can
# be emptied frees the decoded message, but not the bytes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3
cat > server.py <<'PYTHON'
import asyncio
import ctypes
import gc
import subprocess
import sys
import weakref

import grpc

MIB = 2**20
SIZE, CALLS = 40 * MIB, 3  # Above the largest threshold of malloc, so that freed memory leaves the process.
CLIENT = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1], options=[("grpc.max_send_message_length", -1)]) as channel:
    calls = [channel.unary_stream("/test.Service/Call")(bytes(int(sys.argv[2]))) for _ in range(int(sys.argv[3]))]
    for call in calls:
        next(call)
    print("started", flush=True)
    sys.stdin.readline()
    for call in calls:
        list(call)
"""


class Message:
    """Stands for a decoded message: a copy of the bytes, which `clear` lets go."""

    alive: "weakref.WeakSet[Message]" = weakref.WeakSet()

    def __init__(self, data):
        self.data = bytearray(data)
        self.alive.add(self)

    def clear(self):
        self.data = None


def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


async def held(clears):
    """Return the sizes of a request that each call holds while it streams and after its end, and the messages alive."""
    end = asyncio.Event()

    async def handle(request, context):
        if clears:
            request.clear()
        del request
        await context.write(b"event")
        await end.wait()

    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    method = grpc.unary_stream_rpc_method_handler(handle, request_deserializer=Message)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", {"Call": method})])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    before = resident()
    arguments = [sys.executable, "-c", CLIENT, target, str(SIZE), str(CALLS)]
    client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        await asyncio.to_thread(client.stdout.readline)
        await asyncio.sleep(0.5)
        during, alive = resident() - before, len(Message.alive)
        end.set()
        await asyncio.to_thread(client.communicate, "\n")
    finally:
        client.kill()
    await asyncio.sleep(0.5)
    after = resident() - before
    await server.stop(0)
    return round(during / SIZE / CALLS, 1), round(after / SIZE / CALLS, 1), alive


print("grpcio", grpc.__version__, "python", sys.version.split()[0])
results = {clears: asyncio.run(held(clears)) for clears in (False, True)}
for clears, (during, after, alive) in results.items():
    print(f"handler {'clears and ' if clears else ''}deletes it: {during} requests held by each call;", end=" ")
    print(f"{alive} of {CALLS} messages alive; {after} held after the end")
expected = {False: (2.0, 0.0, CALLS), True: (1.0, 0.0, CALLS)}
sys.exit(any(abs(got - want) > 0.2 for key in expected for got, want in zip(results[key], expected[key])))
PYTHON
environment/bin/python server.py
