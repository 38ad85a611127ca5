#!/usr/bin/env bash
# Whether a gRPC error with more than 8 KiB of details arrives is decided by chance, and grpc_status raises ValueError.
#
# Guess: the limit of 8 KiB for metadata is a limit: the same error either always arrives or never does. If not, the
# client sees one status, and `rpc_status.from_call` returns None because the details are lost.
# What happens: between 8 and 16 KiB the receiver refuses a share of the errors that grows with their size. The client
# then sees RESOURCE_EXHAUSTED instead of the status of the server. The refused details are nevertheless attached to the
# call, so `from_call` raises ValueError, since their code is not the one of the call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check \
  grpcio==1.85.3 grpcio-status==1.85.3 protobuf==6.33.6
cat > errors.py <<'PYTHON'
import sys
from collections import Counter
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

CALLS = 300


def status(violations):
    fields = [{"field": f"options.field_{n}", "description": "must be from 0 to 1, is 7"} for n in range(violations)]
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=fields))
    return status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="invalid", details=[detail])


def handle(request, context):
    context.abort_with_status(rpc_status.to_status(status(int(request))))


def outcome(call):
    try:
        call()
    except grpc.RpcError as error:
        try:
            details = "details" if rpc_status.from_call(error) else "no details"
        except ValueError:
            details = "ValueError"
        return error.code().name, details
    return "OK", ""


server = grpc.server(futures.ThreadPoolExecutor(2))
methods = {"Call": grpc.unary_unary_rpc_method_handler(handle)}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Service", methods)])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
channel = grpc.insecure_channel(f"127.0.0.1:{port}")
call = channel.unary_unary("/test.Service/Call")

print("grpcio", grpc.__version__, "python", sys.version.split()[0])
ARRIVED, REPLACED = ("INVALID_ARGUMENT", "details"), ("RESOURCE_EXHAUSTED", "ValueError")
seen = {}
for violations in (140, 200, 260, 400):
    outcomes = Counter(outcome(lambda: call(str(violations).encode())) for _ in range(CALLS))
    seen[violations] = set(outcomes)
    print(f"{status(violations).ByteSize()} bytes of details, {CALLS} calls: {dict(outcomes)}")
server.stop(0)
both = {ARRIVED, REPLACED}
expected = {140: {ARRIVED}, 200: both, 260: both, 400: {("RESOURCE_EXHAUSTED", "no details")}}
sys.exit(seen != expected)
PYTHON
environment/bin/python errors.py
