"""Several jobs at once on one server: what sharing the device gains, and what it costs.

    make bench-sharing BENCH='--iterations 60'

Only ratios count; absolute times are those of the machine and the moment.
"""

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nst_client
from demo import server

from bench.pictures import prepare

_EQUAL_JOBS, _EQUAL_SIZE = 8, 256
_SMALL_SIZE, _LARGE_SIZE = 128, 1024
_ENDLESS = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder with tubingen.jpg and starry_night.jpg")
    parser.add_argument("--iterations", type=int, default=100, help="of the small job")
    parser.add_argument("--equal-iterations", type=int, default=20, help="of each of the equal jobs")
    parser.add_argument("--rounds", type=int, default=10, help="small jobs, alone and beside the large one")
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workplace = Path(folder)
        with server(workplace / "server.log") as target, nst_client.StyleTransferClient(target) as client:
            equal = measure_equal(client, prepare(args.pictures, workplace, size=_EQUAL_SIZE), args.equal_iterations)
            small = measure_small(
                client,
                prepare(args.pictures, workplace, size=_SMALL_SIZE),
                prepare(args.pictures, workplace, size=_LARGE_SIZE),
                args.iterations,
                args.rounds,
            )
    if args.json:
        args.json.write_text(json.dumps({"equal": equal, "small": small}, indent=2))


def measure_equal(
    client: nst_client.StyleTransferClient, pictures: tuple[Path, Path], iterations: int
) -> dict[str, float]:
    """Run equal jobs one after the other and all at once, and print the ratio of their throughput."""

    def run(_: int) -> None:
        options = nst_client.TransferOptions(image_size=_EQUAL_SIZE, iterations=iterations)
        client.stylize(*pictures, options=options)

    run(0)
    started = time.perf_counter()
    for number in range(_EQUAL_JOBS):
        run(number)
    serial = time.perf_counter() - started
    with ThreadPoolExecutor(_EQUAL_JOBS) as callers:
        started = time.perf_counter()
        list(callers.map(run, range(_EQUAL_JOBS)))
        at_once = time.perf_counter() - started
    print(f"\n{_EQUAL_JOBS} jobs of {_EQUAL_SIZE} px, {iterations} iterations each")
    print(f"one after the other {serial:.1f} s, at once {at_once:.1f} s: {serial / at_once:.2f} x", flush=True)
    return {"serial": serial, "at_once": at_once}


def measure_small(
    client: nst_client.StyleTransferClient,
    small: tuple[Path, Path],
    large: tuple[Path, Path],
    iterations: int,
    rounds: int,
) -> dict[str, list[float]]:
    """Run small jobs alone and beside a large one in turns, and print how long each took."""

    def seconds() -> float:
        started = time.perf_counter()
        client.stylize(*small, options=nst_client.TransferOptions(image_size=_SMALL_SIZE, iterations=iterations))
        return time.perf_counter() - started

    # At full size from the start: coarse steps are short, and hold nobody up.
    options = nst_client.TransferOptions(image_size=_LARGE_SIZE, iterations=_ENDLESS, scales=1)
    alone, beside = [], []
    seconds()
    # In turns: what else the machine does changes from minute to minute.
    for _ in range(rounds):
        alone.append(seconds())
        with client.stream(*large, options=options) as stylization:
            next(event for event in stylization if isinstance(event, nst_client.Progress))
            beside.append(seconds())
    ratios = sorted(shared / own for shared, own in zip(beside, alone, strict=True))
    p95 = statistics.quantiles(ratios, n=20, method="inclusive")[-1]
    print(f"\n{_SMALL_SIZE} px, {iterations} iterations, {rounds} rounds")
    print(f"alone: median {statistics.median(alone):.1f} s")
    print(f"beside a job of {_LARGE_SIZE} px: median {statistics.median(beside):.1f} s")
    print(f"beside / alone: median {statistics.median(ratios):.2f}, p95 {p95:.2f}", flush=True)
    return {"alone": alone, "beside": beside}


if __name__ == "__main__":
    main()
