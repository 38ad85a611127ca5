"""Compares nst with published programs, and measures its server.

    make bench                                             # ten minutes, 256 px
    make bench-full BENCH='--pictures FOLDER'              # hours, 512 px
    make bench BENCH='--only race --variant fine:scales=2' # one section, with a second configuration of nst

Prints tables, writes all figures as JSON, and writes docs/benchmarks.md with its plots.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nst_service.engine.options import TransferOptions

from bench import ROOT, machine, report
from bench.growth import measure_growth
from bench.pictures import pairs
from bench.profiling import measure_profile
from bench.programs import COMPETITORS, NST, Program, Stage
from bench.race import Race, Settings
from bench.service import measure_cold_start, measure_jobs, measure_latency, measure_memory, measure_throughput
from bench.task import Task

SECTIONS = ("race", "jobs", "cold", "memory", "throughput", "latency", "growth", "profile")
_REFERENCE = TransferOptions()


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """The defaults of the arguments that say how much is measured."""

    size: int
    iterations: int
    pairs: int
    rounds: int
    turns: int
    sizes: tuple[int, ...]
    service_iterations: int


QUICK = Amounts(size=256, iterations=100, pairs=1, rounds=1, turns=2, sizes=(256, 512), service_iterations=20)
FULL = Amounts(
    size=512, iterations=200, pairs=3, rounds=1, turns=5, sizes=(256, 512, 1024, 2048, 4096), service_iterations=100
)


def main() -> None:
    """Measure as the arguments say, print the results and write them."""
    parser, full = _parser()
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = {
            "command": f"make {'bench-full' if full else 'bench'}",
            "machine": machine.describe(),
            **_measure(args, Path(folder)),
        }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(results, indent=2))
    report.show(results)
    print(f"All figures: {args.json}")
    if args.docs:
        report.write(results, args.docs)
        print(f"Report: {args.docs / 'benchmarks.md'}")


def variant(text: str) -> Program:
    """Parse a configuration of nst, such as "fine:scales=2,lbfgs_history=5"."""
    name, _, options = text.partition(":")
    fields = dict(option.split("=", 1) for option in options.split(",") if option)
    values = {field: _value(value) for field, value in fields.items()}
    return Program(name=f"nst {name}", runner="nst", options=values, note=f"`{options}`")


def _value(text: str) -> Any:
    """Convert a number, a list of numbers separated by "+", or a word."""
    try:
        return json.loads(f"[{text.replace('+', ',')}]" if "+" in text else text)
    except ValueError:
        return text


def _measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    stage = Stage(args.cache / "environments", folder)
    chosen = pairs(args.pictures, args.pairs)
    pair = chosen[0]
    content, style = pair.write(folder, args.service_size)
    task = Task(
        content=str(content),
        style=str(style),
        weights="",
        size=args.service_size,
        evaluations=1,
        folder=str(folder / "nst"),
        content_weight=_REFERENCE.content_weight,
        style_weight=_REFERENCE.style_weight,
        tv_weight=args.tv_weight,
    )
    results: dict[str, Any] = {}
    if "race" in args.only:
        settings = Settings(
            size=args.size,
            iterations=args.iterations,
            rounds=args.rounds,
            turns=args.turns,
            turn_evaluations=args.turn_evaluations,
        )
        race = Race(stage, settings, task, (NST, *args.variant, *_competitors(args.programs)))
        results["race"] = race.run(chosen)
    if {"jobs", "cold"} & set(args.only):
        jobs = measure_jobs(
            pair, folder, size=args.service_size, iterations=args.service_iterations, count=1 + args.service_rounds
        )
        results["jobs"] = jobs
        if "cold" in args.only:
            results["cold"] = measure_cold_start(stage, task, jobs["jobs"][1:], rounds=args.service_rounds)
    if "memory" in args.only:
        results["memory"] = measure_memory(pair, folder, size=args.size, iterations=25)
    if "throughput" in args.only:
        results["throughput"] = measure_throughput(
            pair, folder, size=args.service_size, iterations=args.service_iterations // 4, jobs=8, turns=3
        )
    if "latency" in args.only:
        results["latency"] = measure_latency(
            pair,
            folder,
            small=args.service_size // 2,
            large=4 * args.service_size,
            iterations=args.service_iterations // 2,
            jobs=args.latency_jobs,
        )
    if "growth" in args.only:
        results["growth"] = measure_growth(
            stage, task, pair, folder, sizes=args.sizes, evaluations=args.turn_evaluations, rounds=1
        )
    if "profile" in args.only:
        results["profile"] = measure_profile(task, pair, folder, size=args.size, evaluations=args.turn_evaluations)
    return results


def _competitors(names: list[str]) -> list[Program]:
    return [program for program in COMPETITORS if not names or program.runner in names]


def _parser() -> tuple[argparse.ArgumentParser, bool]:
    """Return the parser, and whether --full is given, which changes the defaults."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--full", action="store_true", help="measure more, at 512 px")
    full = first.parse_known_args()[0].full
    amounts = FULL if full else QUICK
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[first],
    )
    add = parser.add_argument
    add("--pictures", type=Path, help="folder with tubingen.jpg, starry_night.jpg, the_scream.jpg and shipwreck.jpg")
    add("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    add(
        "--programs",
        nargs="+",
        choices=[program.runner for program in COMPETITORS],
        default=[],
        help="programs to compare with; all if omitted",
    )
    add(
        "--variant",
        type=variant,
        action="append",
        default=[],
        metavar="NAME:OPTION=VALUE,...",
        help="another configuration of nst",
    )
    add("--size", type=int, default=amounts.size, help="longest edge in pixels: race, memory, profile")
    add("--iterations", type=int, default=amounts.iterations, help="evaluations of a whole run")
    add("--pairs", type=int, default=amounts.pairs, help="pairs of pictures")
    add("--rounds", type=int, default=amounts.rounds, help="whole runs of each program on each pair")
    add("--turns", type=int, default=amounts.turns, help="short runs of each program on each pair")
    add("--turn-evaluations", type=int, default=5, help="evaluations that are timed in a short run")
    add(
        "--tv-weight",
        type=float,
        default=0.0,
        help="weight of the total variation, where supported",
    )
    add("--sizes", type=int, nargs="+", default=amounts.sizes, help="longest edges in pixels: growth")
    add("--service-size", type=int, default=256, help="longest edge in pixels of the jobs of the server")
    add(
        "--service-iterations",
        type=int,
        default=amounts.service_iterations,
        help="iterations of a job of the server",
    )
    add("--service-rounds", type=int, default=3, help="repetitions of each measurement of the server")
    add("--latency-jobs", type=int, default=10, help="number of small jobs, alone and beside a large one")
    add("--cache", type=Path, default=ROOT / ".bench", help="folder for the environments of other programs")
    add("--json", type=Path, default=ROOT / ".bench" / "results.json", help="file for all figures")
    add("--docs", type=Path, default=ROOT / "docs", help="folder for benchmarks.md")
    return parser, full


if __name__ == "__main__":
    main()
