"""Measures what metrics cost a job, and how long a scrape takes while jobs run.

    python -m bench.metrics [--pairs 20] [--size 256] [--iterations 100]

Two servers in one process run the same job in turns, because two processes can differ by a few percent for no other
reason than the layout of their memory. One of them has metrics, which are scraped every second. A pair is a job of
each. The server that begins changes from pair to pair.

The interval contains the median ratio with a confidence of 95 %. It is between two order statistics of the ratios,
which assumes nothing on their distribution. Exits with 1 if the median ratio or the median time of a scrape exceeds its
goal.
"""

import argparse
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from nst_client import StyleTransferClient
from scipy.stats import binom

from bench.jobs import running
from bench.pictures import pairs
from bench.server import free_port
from bench.service import run_job
from bench.timing import seconds_of

_GOAL_RATIO = 1.01
_GOAL_SCRAPE_SECONDS = 0.050
_SCRAPE_PAUSE = 1.0
"""Seconds between two scrapes while jobs are timed: more often than any Prometheus scrapes."""
_OFF, _ON = "without", "with metrics"
_JOBS = 4
"""The number of jobs that run at once while scrapes are timed."""
_CONFIDENCE = 0.95


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Return the interval that contains the median of the distribution of ratios with a confidence of 95 %.

    With fewer than six ratios it contains all of them, and the confidence is smaller.
    """
    count = len(ratios)
    rank = max(1, int(binom.ppf((1 - _CONFIDENCE) / 2, count, 0.5)))
    ordered = sorted(ratios)
    return ordered[rank - 1], ordered[count - rank]


def main() -> int:
    """Measure as the arguments say, print the results and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of jobs")
    parser.add_argument("--size", type=int, default=256, help="longest edge in pixels")
    parser.add_argument("--iterations", type=int, default=100, help="iterations of a job")
    parser.add_argument("--scrapes", type=int, default=100, help="scrapes that are timed while jobs run")
    args = parser.parse_args()
    url = f"http://127.0.0.1:{(port := free_port())}/metrics"
    with tempfile.TemporaryDirectory() as folder:
        content, style = pairs(None, 1)[0].write(Path(folder), args.size)
        servers = {
            _OFF: {"data_dir": f"{folder}/off"},
            _ON: {"data_dir": f"{folder}/on", "metrics_address": f"127.0.0.1:{port}"},
        }
        with running(servers) as process:
            seconds = _time_jobs(process.clients, url, (content, style, args.size, args.iterations), args.pairs)
            scrapes = _time_scrapes(process.clients[_ON], url, (content, style, args.size), args.scrapes)
    ratios = [with_metrics / without for without, with_metrics in zip(seconds[_OFF], seconds[_ON], strict=True)]
    low, high = interval(ratios)
    ratio, scrape = statistics.median(ratios), statistics.median(scrapes)
    print(f"{args.size} px, {args.iterations} iterations, {args.pairs} pairs")
    for name, times in seconds.items():
        print(f"{name:<14}{statistics.median(times):>9.3f} s")
    print(f"{'ratio':<14}{ratio:>9.4f}, {_CONFIDENCE:.0%} interval {low:.4f} to {high:.4f}; goal {_GOAL_RATIO:g}")
    goal, longest = 1000 * _GOAL_SCRAPE_SECONDS, 1000 * max(scrapes)
    print(f"{'scrape':<14}{1000 * scrape:>9.1f} ms, longest {longest:.1f} ms; goal {goal:g} ms")
    return 0 if ratio <= _GOAL_RATIO and scrape < _GOAL_SCRAPE_SECONDS else 1


def _time_jobs(
    clients: Mapping[str, StyleTransferClient], url: str, job: tuple[Path, Path, int, int], count: int
) -> dict[str, list[float]]:
    """Return the seconds of the jobs of each server, pair by pair."""
    *pictures, size, iterations = job
    content, style = pictures
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    for client in clients.values():
        run_job(client, content, style, size, min(5, iterations))
    with _scraped(url):
        for number in range(count):
            for name in (_OFF, _ON) if number % 2 else (_ON, _OFF):
                seconds[name].append(run_job(clients[name], content, style, size, iterations).seconds)
    return seconds


def _time_scrapes(client: StyleTransferClient, url: str, job: tuple[Path, Path, int], count: int) -> list[float]:
    """Return the seconds of scrapes while several jobs run."""
    stop = threading.Event()

    def load(_: int) -> None:
        while not stop.is_set():
            run_job(client, *job, 10)

    with ThreadPoolExecutor(_JOBS) as threads:
        loads = [threads.submit(load, number) for number in range(_JOBS)]
        try:
            seconds = []
            for _ in range(count):
                time.sleep(0.1)
                seconds.append(seconds_of(lambda: _scrape(url)))
        finally:
            stop.set()
        for each in loads:
            each.result()
    return seconds


@contextmanager
def _scraped(url: str) -> Iterator[None]:
    """Scrape the metrics every second until the context ends."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(_SCRAPE_PAUSE):
            _scrape(url)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _scrape(url: str) -> None:
    with urllib.request.urlopen(url) as response:
        response.read()


if __name__ == "__main__":
    sys.exit(main())
