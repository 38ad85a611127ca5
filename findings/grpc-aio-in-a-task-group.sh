#!/usr/bin/env bash
# A task group ends without an error and without the answer if a channel of grpc.aio is closed under a call.
#
# Guess: a task that awaits a call gets grpc.RpcError with the code CANCELLED when another task closes the channel or
# cancels the call. In a task group, this error ends the group.
# What happens: the task gets asyncio.CancelledError, although nobody has cancelled it (`cancelling()` is 0). A task
# group takes a task that ends so for one that was cancelled on purpose: it lets the other tasks go on and reports
# nothing. The thread client of the same release raises RpcError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3
cat > group.py <<'PYTHON'
import asyncio
import sys
import threading

import grpc


async def main():
    async def handle(request, context):
        await asyncio.sleep(60)

    server = grpc.aio.server()
    methods = {
        "One": grpc.unary_unary_rpc_method_handler(handle),
        "Stream": grpc.unary_stream_rpc_method_handler(handle),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    found = [await grouped(target, method) for method in methods]
    found.append(await asyncio.to_thread(threaded, target))
    await server.stop(0)
    return found


async def grouped(target, method):
    """Close the channel under a call in a task group, and return what is seen of it."""
    channel = grpc.aio.insecure_channel(target)
    answers, caught, requests = [], [], []

    async def ask():
        try:
            if method == "One":
                answers.append(await channel.unary_unary("/test.Service/One")(b""))
            else:
                answers.extend([answer async for answer in channel.unary_stream("/test.Service/Stream")(b"")])
        except BaseException as error:
            caught.append(type(error).__name__)
            requests.append(asyncio.current_task().cancelling())
            raise

    async def close():
        await asyncio.sleep(0.5)
        await channel.close()

    raised = None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())
            group.create_task(close())
    except BaseException as error:
        raised = error
    print(f"grpc.aio {method}: the task got {caught} with cancelling() {requests}; ", end="")
    print(f"the group raised {raised}; answers: {answers}")
    return caught, requests, raised, answers


def threaded(target):
    """Close the channel under a call of another thread, and return what the caller sees."""
    channel = grpc.insecure_channel(target)
    call = channel.unary_unary("/test.Service/One").future(b"")
    threading.Timer(0.5, channel.close).start()
    try:
        call.result()
    except grpc.RpcError as error:
        print("threads: the caller got RpcError with", error.code())
        return error.code()
    return None


print("grpcio", grpc.__version__, "python", sys.version.split()[0])
silent = (["CancelledError"], [0], None, [])
sys.exit(asyncio.run(main()) != [silent, silent, grpc.StatusCode.CANCELLED])
PYTHON
environment/bin/python group.py
