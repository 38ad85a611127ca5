#!/usr/bin/env bash
# s3fs translates the errors of S3 into OSError, but not those of a store that cannot be reached.
#
# Guess: a file system of fsspec raises OSError for whatever goes wrong, as s3fs does for missing keys and no access.
# A program that handles OSError handles a store that is away, too.
# What happens: a refused connection is botocore's EndpointConnectionError, which is no OSError (and no
# ConnectionError). A background task that catches OSError ends for good. Listing a prefix without keys raises
# FileNotFoundError, although S3 answers with an empty list.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME http_proxy https_proxy
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check \
    s3fs==2026.4.0 "aiobotocore==3.10.*" "moto[s3,server]==5.2.5"
cat > away.py <<'PYTHON'
import logging
import os
import socket
import sys

import s3fs
from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def outcome(function, *arguments):
    """Return the name of the error and whether it is an OSError."""
    try:
        return f"returned {function(*arguments)}", None
    except Exception as error:
        return type(error).__name__, isinstance(error, OSError)


def system(port):
    options = {"config_kwargs": {"retries": {"max_attempts": 1}}}
    return s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{port}", skip_instance_cache=True, **options)


with socket.socket() as unused:
    unused.bind(("127.0.0.1", 0))
    free_port = unused.getsockname()[1]
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
there = system(server.get_host_and_port()[1])
there.mkdir("bucket")
found = {
    "missing key": outcome(there.cat_file, "bucket/missing"),
    "missing bucket": outcome(there.cat_file, "elsewhere/key"),
    "listing without keys": outcome(there.ls, "bucket/prefix"),
    "nobody listens": outcome(system(free_port).cat_file, "bucket/key"),
}
server.stop()
print("s3fs", s3fs.__version__, "python", sys.version.split()[0])
for name, (error, is_os_error) in found.items():
    print(f"{name}: {error}, OSError: {is_os_error}")
missing = ("FileNotFoundError", True)
sys.exit(list(found.values()) != [missing, missing, missing, ("EndpointConnectionError", False)])
PYTHON
environment/bin/python away.py
