"""Sends requests to a server of the checkout that this process imports nst from, and keeps what comes back.

    python -m bench.same_bytes.runner run PICTURES OUTPUT NAME ...
    python -m bench.same_bytes.runner resume OUTPUT DATA NAME

Each result consists of two files: the picture, and a JSON file with what the server reports about it.
"""

import argparse
import dataclasses
import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nst_client import Accepted, Progress, Result, StyleTransferClient, UnavailableError

from bench.same_bytes import requests
from bench.same_bytes.names import INTERRUPTED_STORE, KILLED, UNDISTURBED
from bench.server import check_imports, serving

_REQUEST_ID = "interrupted"
_ONE_THREAD = ("--threads", "1")
"""Flags of each server: two run at once, and the bytes do not depend on the number of threads."""
_CHECKPOINT_SECONDS = 0.05
"""Seconds between two checkpoints: the first one is stored long before the server is killed."""


class RunnerError(Exception):
    """Something else happened than what is to be compared. The message says what."""


def run(pictures: Path, output: Path, names: Sequence[str]) -> None:
    """Send the requests of these names and write their results."""
    whole, tiled = requests.whole(pictures), requests.tiled(pictures)
    if KILLED in names:
        whole[UNDISTURBED] = requests.resumed(pictures)
        names = [UNDISTURBED, *names]
    if chosen := [name for name in names if name in whole]:
        with serving(output / "whole-store", *_ONE_THREAD) as server:
            for name in chosen:
                _run(server.client, whole[name], output, name)
    if chosen := [name for name in names if name in tiled]:
        with serving(output / "tiled-store", *_ONE_THREAD, "--max-job-bytes", str(requests.TILED_JOB_BYTES)) as server:
            for name in chosen:
                accepted = _run(server.client, tiled[name], output, name)
                if not accepted.estimate.tile_size:
                    raise RunnerError(f"{name}: the picture was not worked on in tiles")
    if KILLED in names:
        interrupt(requests.resumed(pictures), output / INTERRUPTED_STORE)
        # What the server left is also for the other checkout to resume.
        shutil.copytree(output / INTERRUPTED_STORE, output / "resumed-store")
        resume(output, output / "resumed-store", KILLED)


def _run(client: StyleTransferClient, request: requests.Request, output: Path, name: str) -> Accepted:
    accepted: list[Accepted] = []
    result = client.stylize(
        **request, on_event=lambda event: accepted.append(event) if isinstance(event, Accepted) else None
    )
    print(f"{name}: {len(result.data)} bytes", flush=True)
    _write(result, output, name, accepted[0])
    return accepted[0]


def interrupt(request: requests.Request, data: Path) -> None:
    """Start a job and kill its server with SIGKILL when most of the iterations are done."""
    last = requests.INTERRUPTED_AFTER * requests.RESUMED_ITERATIONS
    with serving(data, *_ONE_THREAD, "--checkpoint-seconds", str(_CHECKPOINT_SECONDS)) as server:
        try:
            with server.client.stream(**request, request_id=_REQUEST_ID, keep_running=True) as events:
                for event in events:
                    if isinstance(event, Progress) and event.iteration >= last:
                        server.process.send_signal(signal.SIGKILL)
        except UnavailableError:
            return
    raise RunnerError("the job ended before its server was killed")


def resume(output: Path, data: Path, name: str) -> None:
    """Start a server on the data directory of a killed one and write the result of the job that it resumes.

    Raises:
        RunnerError: the job began anew.
    """
    first: Progress | None = None
    with serving(data, *_ONE_THREAD) as server, server.client.watch(request_id=_REQUEST_ID) as events:
        for event in events:
            if first is None and isinstance(event, Progress):
                first = event
        if first is None or first.iteration <= 1:
            raise RunnerError(f"{name}: the job did not go on from a checkpoint")
        print(f"{name}: resumed at iteration {first.iteration}", flush=True)
        _write(events.result, output, name)


def _write(result: Result, output: Path, name: str, accepted: Accepted | None = None) -> None:
    (output / f"{name}.{result.media_type.partition('/')[2]}").write_bytes(result.data)
    completed = result.completed
    said: dict[str, Any] = {
        "media_type": result.media_type,
        "size": (result.width, result.height),
        "stop_reason": completed.stop_reason,
        "iterations": completed.iterations,
        "total_loss": completed.total_loss,
        "terms": [dataclasses.asdict(term) for term in completed.terms],
        "weights": completed.weights.sha256,
    }
    if accepted:
        said["tile_size"] = accepted.estimate.tile_size
    (output / f"{name}.json").write_text(json.dumps(said, indent=1))


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="send requests and write their results")
    running.add_argument("pictures", type=Path, help="folder of the pictures")
    running.add_argument("output", type=Path, help="folder of the results")
    running.add_argument("names", nargs="+", help="names of the requests")
    resuming = commands.add_parser("resume", help="finish the job of a killed server and write its result")
    resuming.add_argument("output", type=Path, help="folder of the result")
    resuming.add_argument("data", type=Path, help="data directory of the killed server")
    resuming.add_argument("name", help="name of the result")
    args = parser.parse_args()
    check_imports()
    if args.command == "run":
        run(args.pictures, args.output, args.names)
    else:
        resume(args.output, args.data, args.name)


if __name__ == "__main__":
    main()
