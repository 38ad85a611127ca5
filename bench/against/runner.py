"""Runs jobs on a server of the checkout that this process imports nst from, one for each line of standard input.

    python -m bench.against.runner CONTENT STYLE DATA THREADS

A line is a JSON object with "preset", "size" and "evaluations". The answer is a JSON object with "evaluation_seconds"
and with "idle_bytes" and "peak_bytes": the memory of the server before its first job, and the most since then.
"""

import argparse
import json
import sys
from pathlib import Path

from nst_client import Preset, StyleTransferClient, TransferOptions

from bench.memory import peak_bytes, reset_peak, resident_bytes
from bench.server import check_imports, serving


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("content", type=Path, help="content picture")
    parser.add_argument("style", type=Path, help="style picture")
    parser.add_argument("data", type=Path, help="data directory of the server")
    parser.add_argument("threads", help="CPU threads of the server")
    args = parser.parse_args()
    check_imports()
    # No checkpoint falls into a job by chance.
    with serving(args.data, "--checkpoint-seconds", "1e9", "--threads", args.threads) as server:
        process = server.process.pid
        idle_bytes = resident_bytes(process)
        reset_peak(process)
        for line in sys.stdin:
            seconds = _evaluation_seconds(server.client, args.content, args.style, **json.loads(line))
            answer = {"evaluation_seconds": seconds, "idle_bytes": idle_bytes, "peak_bytes": peak_bytes(process)}
            print(json.dumps(answer), flush=True)


def _evaluation_seconds(
    client: StyleTransferClient, content: Path, style: Path, *, preset: str, size: int, evaluations: int
) -> float:
    """Run a job on one scale and return the seconds of an evaluation, as the server counts them."""
    options = TransferOptions(preset=Preset(preset), scales=1, image_size=size, iterations=evaluations)
    timings = client.stylize(content, style, options=options).completed.timings
    return timings.optimize_seconds / evaluations


if __name__ == "__main__":
    main()
