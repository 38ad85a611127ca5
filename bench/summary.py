"""Tables of the results of benchmarks: pure functions."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A part of the report."""

    title: str
    text: str = ""
    """A paragraph between the title and the table."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table as Markdown, with its title as a heading of the second level."""
        lines = [f"## {self.title}", ""]
        if self.text:
            lines += [self.text, ""]
        return "\n".join([*lines, *map(_line, (self.columns, ["---"] * len(self.columns), *self.rows))])


def tables(results: Results) -> Iterator[Table]:
    """Yield the tables of each section that was run."""
    for section, make in _TABLES:
        if section in results:
            yield make(results[section])


def seconds_to_reach(points: Sequence[Mapping[str, float]], loss: float) -> float | None:
    """Return the seconds after which a run has reached a loss, or None if it never has.

    Between two pictures, the logarithm of the loss is interpolated linearly.
    """
    if points[0]["loss"] <= loss:
        return points[0]["seconds"]
    for before, after in pairwise(points):
        if after["loss"] <= loss:
            share = math.log(before["loss"] / loss) / math.log(before["loss"] / after["loss"])
            return before["seconds"] + share * (after["seconds"] - before["seconds"])
    return None


def p95(seconds: Sequence[float]) -> float:
    """Return the 95th percentile, interpolated between the two nearest values."""
    return statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios of values that were measured side by side; NaN if there are none."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=False)]
    return statistics.median(ratios) if ratios else math.nan


def by_size(runs: Sequence[Mapping[str, Any]], field: str) -> dict[int, float]:
    """Return the median of a field for each size."""
    sizes = dict.fromkeys(run["size"] for run in runs)
    return {size: statistics.median(run[field] for run in runs if run["size"] == size) for size in sizes}


def _race(race: Results) -> Table:
    settings = race["settings"]
    references = _references(race)
    rows = []
    for program in race["programs"]:
        name = program["name"]
        if name in race["failures"]:
            rows.append([name, f"not run: {race['failures'][name]}", *[""] * 8])
        else:
            rows.append(_row(race, name, references))
    return Table(
        title=f"Loss against seconds at {settings['size']} px",
        text=(
            f'{len(race["pairs"])} pairs of pictures, {settings["iterations"]} evaluations. "nst is x" is the median '
            "of the ratios to nst in the same turn. The loss is computed by the judge, relative to that of the best "
            f"competitor after {settings['iterations']} evaluations. The seconds are the time to reach that loss, and "
            "their ratio is to the time of that competitor. Memory is the peak of the processes of a program, and the "
            f"part beyond the {race['import_bytes'] / 2**20:.0f} MiB of `import torch`."
        ),
        columns=[
            "program",
            "s/evaluation",
            "nst is x",
            f"loss after {settings['iterations']}",
            "s to best competitor's loss",
            "x its seconds",
            "peak MiB",
            "nst is x",
            "beyond torch",
            "nst is x",
        ],
        rows=rows,
    )


def _row(race: Results, name: str, references: Mapping[tuple[str, int], tuple[float, float]]) -> list[str]:
    ours = race["programs"][0]["name"]
    measured = "turns" if race["turns"][ours] else "runs"
    mine, theirs = race[measured][ours], race[measured][name]
    my_peak, their_peak = (_peak(race, program) for program in (ours, name))
    imported = race["import_bytes"]
    losses, seconds, ratios = [], [], []
    for run in race["runs"][name]:
        loss, limit = references.get((run["pair"], run["round"]), (math.nan, math.nan))
        losses.append(run["points"][-1]["loss"] / loss)
        reached = seconds_to_reach(run["points"], loss)
        # A loss that was never reached counts as slower than any that was.
        seconds.append(math.inf if reached is None else reached)
        ratios.append(seconds[-1] / limit)
    return [
        name,
        _number(_median(theirs, "evaluation_seconds"), 3),
        _number(median_ratio(*([run["evaluation_seconds"] for run in runs] for runs in (mine, theirs))), 2),
        _number(statistics.median(losses), 3) if losses else "-",
        _number(statistics.median(seconds), 1) if seconds else "-",
        _number(statistics.median(ratios), 2) if ratios else "-",
        _number(their_peak / 2**20, 0),
        _number(my_peak / their_peak, 2),
        _number((their_peak - imported) / 2**20, 0),
        _number((my_peak - imported) / (their_peak - imported), 2),
    ]


def _peak(race: Results, name: str) -> float:
    """Return the peak memory over all runs of a program. Long runs count: their L-BFGS keeps more past steps."""
    return max((run["peak_bytes"] for runs in (race["turns"], race["runs"]) for run in runs[name]), default=math.nan)


def _references(race: Results) -> dict[tuple[str, int], tuple[float, float]]:
    """Return the final loss and the seconds of the best competitor, by pair and round."""
    competitors = {program["name"] for program in race["programs"] if program["is_competitor"]}
    runs = [run for name, some in race["runs"].items() if name in competitors for run in some]
    # A competitor that gave up half-way is no reference.
    ends: dict[tuple[str, int], tuple[float, float]] = {}
    for run in runs:
        key, end = (run["pair"], run["round"]), run["points"][-1]
        if math.isfinite(end["loss"]):
            ends[key] = min(ends.get(key, (math.inf, math.inf)), (end["loss"], end["seconds"]))
    return ends


def _agreement(race: Results) -> Table:
    rows = []
    for program in race["programs"]:
        some = [run["disagreement"] for run in race["runs"][program["name"]] if run["disagreement"] is not None]
        rows.append([program["name"], program["note"], f"{max(some):.0e}" if some else "-"])
    return Table(
        title="How each program is configured",
        text=(
            "The last column is the largest relative difference, over all runs, between the loss that a program "
            "reports for its last picture and the loss that the judge computes for the same pixels. It shows that both "
            "minimise the same function."
        ),
        columns=["program", "configuration", "differs from the judge by"],
        rows=rows,
    )


def _jobs(section: Results) -> Table:
    return Table(
        title=f"The server at {section['size']} px, {section['iterations']} iterations, the same job again and again",
        columns=["job", "seconds", "outside of the engine", "targets", "first progress", "s/iteration"],
        rows=[
            [
                str(number),
                _number(job["seconds"], 2),
                f"{100 * job['outside']:.2f} %",
                f"{job['targets']:.3f} s",
                f"{job['first_progress']:.3f} s",
                _number(job["iteration"], 3),
            ]
            for number, job in enumerate(section["jobs"], 1)
        ],
    )


def _cold(section: Results) -> Table:
    rows = []
    for moment in ("begins", "ends"):
        cold, warm = (statistics.median(run[moment] for run in section[kind]) for kind in ("cold", "warm"))
        rows.append([f"the first iteration {moment}", f"{cold:.2f} s", f"{warm:.2f} s", _number(warm / cold, 3)])
    return Table(
        title=f"Until the first iteration at {section['size']} px",
        text="Seconds from the start of a process for one job, and from a request to a warm server that has done one.",
        columns=["until", "cold process", "warm server", "warm is x"],
        rows=rows,
    )


def _memory(section: Results) -> Table:
    return Table(
        title="Memory of the server",
        columns=["size", "peak MiB"],
        rows=[[f"{section['size']} px", _number(section["peak_bytes"] / 2**20, 0)]],
    )


def _throughput(section: Results) -> Table:
    turns = section["turns"]
    return Table(
        title=f"{section['jobs']} jobs at {section['size']} px, {section['iterations']} iterations each",
        columns=["one after the other", "at once", "throughput at once is x"],
        rows=[
            [
                f"{_median(turns, 'serial'):.1f} s",
                f"{_median(turns, 'at_once'):.1f} s",
                _number(median_ratio(*([turn[way] for turn in turns] for way in ("serial", "at_once"))), 2),
            ]
        ],
        text=f"Medians of {len(turns)} turns, and the median of their ratios.",
    )


def _latency(section: Results) -> Table:
    alone, beside = p95(section["alone"]), p95(section["beside"])
    return Table(
        title=f"Latency of {section['small']} px jobs, {section['iterations']} iterations, 95th percentile",
        columns=["alone", f"while a {section['large']} px job runs", "x", "jobs"],
        rows=[
            [
                f"{alone:.2f} s",
                f"{beside:.2f} s",
                _number(beside / alone, 2),
                f"{len(section['alone'])}, {len(section['beside'])}",
            ]
        ],
    )


def _growth(section: Results) -> Table:
    runs = section["runs"]
    seconds, pixels, flops, peak = (
        by_size(runs, field) for field in ("evaluation_seconds", "pixels", "flops", "peak_bytes")
    )
    tiles = {run["size"]: run["tile"] for run in runs}
    paces = {size: seconds[size] / pixels[size] * 1e6 for size in seconds}
    return Table(
        title="Growth with the picture, and the share of the machine",
        text=(
            f"Largest over smallest seconds per megapixel: {max(paces.values()) / min(paces.values()):.2f}. A dense "
            f"matrix product reached {section['peak_flops'] / 1e9:.0f} GFLOP/s in the same run. Operations are those "
            "of direct convolutions, forward and backward; Winograd convolutions need fewer."
        ),
        columns=["size", "megapixels", "tile", "s/evaluation", "s/megapixel", "GFLOP/s", "of the peak", "peak MiB"],
        rows=[
            [
                f"{size} px",
                _number(pixels[size] / 1e6, 2),
                str(tiles[size] or "-"),
                _number(seconds[size], 3),
                _number(paces[size], 2),
                _number(flops[size] / seconds[size] / 1e9, 0),
                f"{100 * flops[size] / seconds[size] / section['peak_flops']:.0f} %",
                _number(peak[size] / 2**20, 0),
            ]
            for size in seconds
        ],
    )


def _profile(section: Results) -> Table:
    total = sum(operator["seconds"] for operator in section["operators"])
    return Table(
        title=f"Where the time of an evaluation goes at {section['size']} px",
        text="Seconds in each operator of torch, over all evaluations. Operators below one per cent are left out.",
        columns=["operator", "calls", "seconds", "share"],
        rows=[
            [operator["name"], str(operator["calls"]), _number(operator["seconds"], 2), f"{100 * share:.0f} %"]
            for operator in section["operators"]
            if (share := operator["seconds"] / total) >= 0.01
        ],
    )


def _median(results: Sequence[Mapping[str, float]], field: str) -> float:
    return statistics.median(result[field] for result in results) if results else math.nan


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "-"
    return "never" if math.isinf(value) else f"{value:.{digits}f}"


_TABLES = (
    ("race", _race),
    ("race", _agreement),
    ("jobs", _jobs),
    ("cold", _cold),
    ("memory", _memory),
    ("throughput", _throughput),
    ("latency", _latency),
    ("growth", _growth),
    ("profile", _profile),
)
"""The function that makes a table of each section of the results, in their order."""
