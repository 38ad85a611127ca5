#!/usr/bin/env bash
# The least pause between two attempts of gRPC to connect is also the time that an attempt may take.
#
# Guess: `grpc.min_reconnect_backoff_ms` is what its name and its documentation say, the time between two attempts. A
# small value finds a server sooner that comes back.
# What happens: an attempt is given up when the pause before the next one is over, unless `min_reconnect_backoff_ms` is
# longer (20 s by default). With 100 ms for both, a server that takes 300 ms to answer, as over a slow link or through a
# busy proxy, is never reached, however long the client tries. With the default it is reached at once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3
cat > connect.py <<'PYTHON'
import socket
import sys
import threading
import time
from concurrent import futures

import grpc

DELAY = 0.3

server = grpc.server(futures.ThreadPoolExecutor(2))
methods = {"Call": grpc.unary_unary_rpc_method_handler(lambda request, context: b"answer")}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
server_port = server.add_insecure_port("127.0.0.1:0")
server.start()
listener = socket.create_server(("127.0.0.1", 0))
connections = 0


def carry(source, target):
    try:
        while data := source.recv(65536):
            time.sleep(DELAY)
            target.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, target):
            end.close()


def accept():
    global connections
    while True:
        near, _ = listener.accept()
        connections += 1
        far = socket.create_connection(("127.0.0.1", server_port))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=carry, args=ends, daemon=True).start()


def attempt(**milliseconds):
    """Return whether a call through the slow link is answered within 10 s, and how many connections that took."""
    global connections
    connections = 0
    options = [(f"grpc.{name}_reconnect_backoff_ms", value) for name, value in milliseconds.items()]
    with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}", options=options) as channel:
        try:
            answer = channel.unary_unary("/test.Service/Call")(b"", timeout=10, wait_for_ready=True)
        except grpc.RpcError as error:
            answer = error.code().name.encode()
    print(f"{milliseconds or 'defaults'}: {answer.decode()} after {connections} connections")
    return answer == b"answer", connections > 5


print("grpcio", grpc.__version__, "python", sys.version.split()[0])
threading.Thread(target=accept, daemon=True).start()
found = [attempt(), attempt(max=100), attempt(min=100, max=100)]
server.stop(0)
sys.exit(found != [(True, False), (True, False), (False, True)])
PYTHON
environment/bin/python connect.py
