#!/usr/bin/env bash
# grpc.aio cannot end a call whose client does not read: the message that is being sent stays until the client leaves.
#
# Guess: a handler that gives up a `context.write` that never ends can still `abort` the call. The client gets the
# status, and the message is freed.
# What happens: while the message is being sent, gRPC refuses the status (GRPC_CALL_ERROR_TOO_MANY_OPERATIONS), whether
# `abort` sends it or the end of the handler. Neither the client nor the memory is told. Only the end of the connection
# frees the message, and nothing in grpc.aio ends a connection.
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
import os
import sys

import grpc

MIB = 2**20
SIZE, CALLS = 8 * MIB, 10


def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


async def main():
    errors = []

    async def stall(request, context):
        try:
            await asyncio.wait_for(context.write(bytes(SIZE)), 1)
        except TimeoutError:
            try:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "stalled")
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                errors.append(str(error))

    server = grpc.aio.server()
    method = grpc.unary_stream_rpc_method_handler(stall)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", {"Call": method})])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    before = resident()
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", CLIENT, target, str(CALLS))
    await asyncio.sleep(5)
    held = resident() - before
    client.kill()
    await client.wait()
    await asyncio.sleep(1)
    after = resident() - before
    await server.stop(0)
    return errors, round(held / SIZE / CALLS, 1), round(after / SIZE / CALLS, 1)


CLIENT = """
import sys, time, grpc
options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
channel = grpc.insecure_channel(sys.argv[1], options=options)
calls = [channel.unary_stream("/test.Service/Call")(b"") for _ in range(int(sys.argv[2]))]
import os, signal
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGSTOP)
"""
os.environ["GRPC_VERBOSITY"] = "NONE"
print("grpcio", grpc.__version__, "python", sys.version.split()[0])
errors, held, after = asyncio.run(main())
print(f"{len(errors)} of {CALLS} calls could not be ended: {errors[:1]}")
print(f"{held} messages held by each call that was given up, {after} after its client has left")
sys.exit(not (len(errors) == CALLS and held > 0.8 and after < 0.2))
PYTHON
environment/bin/python server.py 2> /dev/null
