"""Compares the speed and the memory of this checkout with those of another one, in pairs on the same machine.

    git worktree add ../before v0.1.0 && (cd ../before && python setup.py build_ext --inplace)
    python -m bench.against ../before --sizes 256 512 --pairs 4

A pair is a fresh server of each checkout. Both run the same short jobs in turns, so that whatever else the machine does
meets both alike, and the one that begins changes from turn to turn. The ratio of a pair is the median over its turns.
Fresh servers for each pair average over the luck that a process has with the layout of its memory.

Exits with 1 if the median of the ratios exceeds --limit for the seconds of an evaluation or for the peak of the memory.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.checkouts import Checkout, CheckoutError, Running, this_and
from bench.pictures import Pair, pairs
from bench.summary import median_ratio

_RUNNER = "bench.against.runner"
_PRESETS = ("balanced", "reference")
_PIXELS = 2**21
"""Pixels that the evaluations of a job work on, all together, so that jobs of large pictures take about as long."""
_MOST_EVALUATIONS = 32
_WARM_UP_EVALUATIONS = 3


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one server of a pair."""

    turns: Sequence[float]
    """Seconds of an evaluation in each turn."""
    idle_bytes: int
    """Memory of the server before its first job, when it was warm."""
    peak_bytes: int
    """The most memory that the server has had since then."""

    @property
    def job_bytes(self) -> int:
        """The part of the peak that the jobs have added."""
        return self.peak_bytes - self.idle_bytes


def main() -> int:
    """Measure as the arguments say and return the exit code."""
    args = _parser().parse_args()
    is_within = True
    print(f"{'':<22}{'figure':<14}{'this':>9}{'other':>9}{'ratio':>8}   ratios of the pairs")
    try:
        checkouts, pictures = this_and(args.other), pairs(None, 1)[0]
        for preset in args.presets:
            for size in args.sizes:
                measured = [_measure(checkouts, pictures, preset, size, args) for _ in range(args.pairs)]
                ratios = show(f"{preset}, {size} px", measured)
                is_within = is_within and max(ratios) <= args.limit
    except CheckoutError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"This checkout over the other one; at most {args.limit:g} is accepted.")
    return 0 if is_within else 1


def show(name: str, measured: Sequence[tuple[Figures, Figures]]) -> tuple[float, float]:
    """Print the figures of some pairs, ours first in each.

    Returns:
        The medians of the ratios of seconds and of peak memory.
    """
    seconds = [(statistics.median(ours.turns), statistics.median(theirs.turns)) for ours, theirs in measured]
    peaks = [(ours.peak_bytes / 2**20, theirs.peak_bytes / 2**20) for ours, theirs in measured]
    jobs = [(ours.job_bytes / 2**20, theirs.job_bytes / 2**20) for ours, theirs in measured]
    seconds_ratio = _show(
        name, "s/evaluation", seconds, [median_ratio(ours.turns, theirs.turns) for ours, theirs in measured]
    )
    peak_ratio = _show(name, "peak MiB", peaks, [ours / theirs for ours, theirs in peaks])
    _show(name, "beyond idle", jobs, [ours / theirs for ours, theirs in jobs])
    return seconds_ratio, peak_ratio


def _show(name: str, figure: str, values: Sequence[tuple[float, float]], ratios: Sequence[float]) -> float:
    """Print the row of a figure and return the median of its ratios."""
    ours, theirs = (statistics.median(column) for column in zip(*values, strict=True))
    ratio = statistics.median(ratios)
    each = " ".join(f"{ratio:.3f}" for ratio in ratios)
    print(f"{name:<22}{figure:<14}{ours:>9.4g}{theirs:>9.4g}{ratio:>8.3f}   {each}", flush=True)
    return ratio


def _measure(
    checkouts: Sequence[Checkout], pictures: Pair, preset: str, size: int, args: argparse.Namespace
) -> tuple[Figures, Figures]:
    """Run one pair."""
    job = {"preset": preset, "size": size}
    evaluations = min(_MOST_EVALUATIONS, max(_WARM_UP_EVALUATIONS, _PIXELS // size**2))
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        content, style = pictures.write(folder, size)
        runners: list[Running] = []
        for checkout in checkouts:
            arguments = [str(content), str(style), str(folder / checkout.name), str(args.threads)]
            runners.append(checkout.start(_RUNNER, arguments, folder / f"{checkout.name}.log"))
            stack.callback(runners[-1].interrupt)
        for runner in runners:
            runner.ask({**job, "evaluations": _WARM_UP_EVALUATIONS})
        answers: dict[Checkout, list[dict[str, Any]]] = {checkout: [] for checkout in checkouts}
        for turn in range(args.turns):
            for runner in runners if turn % 2 == 0 else reversed(runners):
                answers[runner.checkout].append(runner.ask({**job, "evaluations": evaluations}))
    ours, theirs = (_figures(answers[checkout]) for checkout in checkouts)
    return ours, theirs


def _figures(answers: Sequence[Mapping[str, Any]]) -> Figures:
    last = answers[-1]
    turns = [answer["evaluation_seconds"] for answer in answers]
    return Figures(turns=turns, idle_bytes=last["idle_bytes"], peak_bytes=last["peak_bytes"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("other", type=Path, help="folder of the other checkout, with its native kernel built")
    add("--sizes", type=int, nargs="+", default=[256, 512], help="longest edges in pixels")
    add("--presets", nargs="+", default=_PRESETS, help="presets, each on one scale")
    add("--pairs", type=int, default=4, help="pairs of fresh servers for each preset and size")
    add("--turns", type=int, default=3, help="jobs that each server of a pair runs")
    add("--threads", type=int, default=0, help="CPU threads of each server; 0 takes one for each core")
    add("--limit", type=float, default=1.02, help="largest accepted median of the ratios")
    return parser


if __name__ == "__main__":
    sys.exit(main())
