#!/usr/bin/env bash
# A message of protobuf for Python never gives memory back before it and all its parts are gone.
#
# Guess: assigning a bytes field, ClearField, Clear and parsing again free or reuse the memory of the value before, as
# reusing a message does in C++. A small message taken out of a large one keeps itself alive, not the large one.
# What happens: all parts of a message live in one arena (upb), which only grows. A client that fills the same request
# with one picture after the other holds all of them. The options taken out of a request hold its picture; a copy of
# them does not. And every reading of a bytes field makes a new copy of the value.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check protobuf==6.33.6
cat > messages.py <<'PYTHON'
import ctypes
import gc
import sys

import google.protobuf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import api_implementation

SIZE = 40 * 2**20  # Above the largest threshold of malloc, so that freed memory leaves the process.

file = descriptor_pb2.FileDescriptorProto(name="test.proto", package="test", syntax="proto3")
options = file.message_type.add(name="Options")
options.field.add(name="iterations", number=1, type=5, label=1)
request = file.message_type.add(name="Request")
request.field.add(name="picture", number=1, type=12, label=1)
request.field.add(name="options", number=2, type=11, label=1, type_name=".test.Options")
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
Options = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Options"))
Request = message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Request"))


def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


before = resident()
found = {}


def note(name):
    found[name] = round((resident() - before) / SIZE, 1)
    print(f"{name}: {found[name]} pictures held")


print("protobuf", google.protobuf.__version__, api_implementation.Type(), "python", sys.version.split()[0])
message = Request()
for _ in range(5):
    message.picture = bytes(SIZE)
note("one message, five pictures assigned in turn")
message.ClearField("picture")
note("the same after ClearField")
message.Clear()
note("the same after Clear")
del message
note("without the message")

wire = Request(picture=bytes(SIZE), options={"iterations": 3}).SerializeToString()
before = resident()
message = Request()
for _ in range(5):
    message.ParseFromString(wire)
note("one message, five requests parsed in turn")
del message

message = Request.FromString(wire)
part = message.options
del message
note("the options of a request that is deleted")
copy = Options()
copy.CopyFrom(part)
del part
note("a copy of these options")

message = Request.FromString(wire)
first, second = message.picture, message.picture
note("a request whose picture was read twice")
print("read twice, the same object:", first is second)
sys.exit(api_implementation.Type() != "upb" or list(found.values()) != [5, 5, 5, 0, 5, 1, 0, 3] or first is second)
PYTHON
environment/bin/python messages.py
