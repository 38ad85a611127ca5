"""Runs `nst-client stylize` against a server of the checkout that this process imports nst from.

    python -m bench.looks.nst_runner DATA THREADS

A line of standard input is a JSON object with "arguments", those of `nst-client stylize`. The answer is a JSON object
with "code", the exit code, and "message", what the client said on stderr.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from bench.server import check_imports, serving

_CLIENT = "from nst_client.cli import main; main()"


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="data directory of the server")
    parser.add_argument("threads", help="CPU threads of the server")
    args = parser.parse_args()
    check_imports()
    with serving(args.data, "--threads", args.threads) as server:
        command = [sys.executable, "-c", _CLIENT, "--target", server.target, "stylize", "--quiet"]
        for line in sys.stdin:
            arguments: list[str] = json.loads(line)["arguments"]
            done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
            print(json.dumps({"code": done.returncode, "message": done.stderr}), flush=True)


if __name__ == "__main__":
    main()
