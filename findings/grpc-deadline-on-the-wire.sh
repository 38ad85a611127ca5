#!/usr/bin/env bash
# gRPC tells the server a later deadline than the client has, and an infinite timeout has passed at once.
#
# Guess: `time_remaining()` of the server is at most the timeout of the client, less the way. `timeout=math.inf` means
# no timeout.
# What happens: the timeout travels with two or three digits and is rounded up, by up to 1 %: a client that waits for
# 1001 s is taken for one that waits for 1010 s. A server that plans its work up to the deadline answers when the client
# has been gone for 9 s. With `math.inf`, and with any timeout of more than 300 years, a call ends with
# DEADLINE_EXCEEDED before it is sent.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check grpcio==1.85.3
cat > deadline.py <<'PYTHON'
import math
import sys
from concurrent import futures

import grpc

TIMEOUTS = (9.999, 10.01, 99.9, 101, 999, 1001, 3601, 10001)

server = grpc.server(futures.ThreadPoolExecutor(2))
methods = {"Call": grpc.unary_unary_rpc_method_handler(lambda request, context: b"%f" % context.time_remaining())}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/test.Service/Call")
call(b"", timeout=1000)  # Connects.

print("grpcio", grpc.__version__, "python", sys.version.split()[0])
excess = {}
for timeout in TIMEOUTS:
    remaining = float(call(b"", timeout=timeout))
    excess[timeout] = remaining - timeout
    print(f"timeout {timeout} s: the server has {remaining:.2f} s left")
code = None
try:
    call(b"", timeout=math.inf)
except grpc.RpcError as error:
    code = error.code()
print("timeout math.inf:", code)
server.stop(0)
rounded = excess[1001] > 8 and excess[10001] > 80 and excess[101] > -0.5 and excess[3601] > 5
sys.exit(not rounded or max(excess[t] / t for t in TIMEOUTS) > 0.01 or code is not grpc.StatusCode.DEADLINE_EXCEEDED)
PYTHON
environment/bin/python deadline.py
