"""Loss against seconds of every program, on the same pictures and in turns."""

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.environments import InstallationError
from bench.judge import Judge
from bench.pictures import Pair
from bench.programs import Program, ProgramError, Stage, Trace
from bench.task import Task

SKIPPED = 3
"""Evaluations at the start of a run that do not count, because memory and kernels are new."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The amount of work of a race."""

    size: int
    """Longest edge in pixels."""
    iterations: int
    """Evaluations of a whole run."""
    rounds: int
    """Number of whole runs of each program on each pair."""
    turns: int
    """Number of short runs of each program on each pair. They only measure the evaluation and the memory."""
    turn_evaluations: int
    """Evaluations that are timed in a short run."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An intermediate picture of a run."""

    evaluations: int
    seconds: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """One whole run of one program."""

    pair: str
    round: int
    points: Sequence[Point]
    evaluation_seconds: float
    """Median of the seconds of an evaluation."""
    peak_bytes: int
    disagreement: float | None
    """Relative difference between the loss that the program reports for its last picture and the loss by the judge.
    None for a program that reports none."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One short run of one program."""

    pair: str
    evaluation_seconds: float
    peak_bytes: int


class Race:
    """Runs the programs and collects their results."""

    def __init__(self, stage: Stage, settings: Settings, task: Task, programs: Sequence[Program]):
        """Prepare a race of programs for the objective of a task."""
        self.runs: dict[str, list[Run]] = {program.name: [] for program in programs}
        self.turns: dict[str, list[Turn]] = {program.name: [] for program in programs}
        self.failures: dict[str, str] = {}
        self._stage = stage
        self._settings = settings
        self._task = task
        self._programs = programs

    def run(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Run everything and return the results as values for JSON."""
        with tempfile.TemporaryDirectory() as folder:
            for pair in pairs:
                self._compete(pair, Path(folder))
        return {
            "settings": {
                **dataclasses.asdict(self._settings),
                "content_weight": self._task.content_weight,
                "style_weight": self._task.style_weight,
                "tv_weight": self._task.tv_weight,
            },
            "pairs": [pair.name for pair in pairs],
            "programs": [
                {"name": program.name, "note": program.note, "is_competitor": program.is_competitor}
                for program in self._programs
            ],
            "runs": _plain(self.runs),
            "turns": _plain(self.turns),
            "failures": self.failures,
            "import_bytes": self._stage.import_bytes(),
        }

    def _compete(self, pair: Pair, folder: Path) -> None:
        settings = self._settings
        task = dataclasses.replace(
            pair.given(self._task, folder, settings.size),
            evaluations=settings.turn_evaluations + SKIPPED,
            folder=str(folder),
        )
        for turn in range(settings.turns):
            for program in self._order(turn):
                if trace := self._trace(program, task, f"{pair.name}, turn {turn + 1}"):
                    self.turns[program.name].append(
                        Turn(
                            pair=pair.name,
                            evaluation_seconds=evaluation_seconds(trace.ends),
                            peak_bytes=trace.peak_bytes,
                        )
                    )
        judge = Judge(task)
        whole = dataclasses.replace(task, evaluations=settings.iterations, samples=tuple(sampled(settings.iterations)))
        for number in range(settings.rounds):
            for program in self._order(number):
                if trace := self._trace(program, whole, f"{pair.name}, round {number + 1}"):
                    self.runs[program.name].append(judged(trace, judge, pair.name, number))

    def _order(self, number: int) -> list[Program]:
        """Return the programs that have not failed, in an order that begins with another one for each number."""
        first = number % len(self._programs)
        return [
            program
            for program in (*self._programs[first:], *self._programs[:first])
            if program.name not in self.failures
        ]

    def _trace(self, program: Program, task: Task, what: str) -> Trace | None:
        print(f"{what}: {program.name}, {task.evaluations} evaluations", flush=True)
        folder = Path(task.folder) / program.name.replace(" ", "-")
        try:
            return self._stage.run(
                program,
                dataclasses.replace(
                    task,
                    weights=str(self._stage.weights(program.pixels)),
                    folder=str(folder),
                    options=_within(program.options, task.evaluations),
                ),
            )
        except (InstallationError, ProgramError) as error:
            if not program.is_competitor:
                raise
            print(f"  {error}", flush=True)
            self.failures[program.name] = str(error)
            return None


def judged(trace: Trace, judge: Judge, pair: str, number: int) -> Run:
    """Return the run with the loss of each of its pictures by the judge."""
    points = [
        Point(evaluations=count, seconds=trace.ends[count - 1], loss=judge.loss(judge.load(path)))
        for count, path in sorted(trace.pictures.items())
    ]
    last = max(trace.pictures)
    own = trace.losses[last]
    return Run(
        pair=pair,
        round=number,
        points=points,
        evaluation_seconds=evaluation_seconds(trace.ends),
        peak_bytes=trace.peak_bytes,
        disagreement=None if own is None else abs(own / judge.unclamped_loss(judge.load(trace.pictures[last])) - 1),
    )


def sampled(iterations: int) -> list[int]:
    """Return the evaluations after which a picture is kept: more of them at first, where the loss falls fast."""
    counts = {round(1.25**power) for power in range(64)} | set(range(0, iterations + 1, max(1, iterations // 20)))
    return sorted(count for count in counts | {iterations} if 1 <= count <= iterations)


def evaluation_seconds(ends: Sequence[float], skipped: int = SKIPPED) -> float:
    """Return the median of the seconds of an evaluation, without the first ones.

    Args:
        ends: seconds from the start of the first evaluation to the end of each.
        skipped: number of evaluations that do not count.
    """
    seconds = [after - before for before, after in pairwise(ends)]
    return statistics.median(seconds[min(skipped, len(seconds)) - 1 :])


def _within(options: Mapping[str, Any], evaluations: int) -> dict[str, Any]:
    """Return the options without `scale_iterations` if these do not add up to the evaluations of this run."""
    shares = options.get("scale_iterations")
    return {
        name: value
        for name, value in options.items()
        if name != "scale_iterations" or (shares and sum(shares) == evaluations)
    }


def _plain(results: Mapping[str, Sequence[Run]] | Mapping[str, Sequence[Turn]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [dataclasses.asdict(result) for result in some] for name, some in results.items()}
