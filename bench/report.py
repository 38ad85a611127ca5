"""Shows results: tables in the terminal, and docs/benchmarks.md with its plots.

python -m bench.report results.json --docs docs    # from the figures of an earlier run
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table as RichTable

from bench.summary import Results, by_size, tables

_IMAGES = Path("images") / "benchmarks"
_FILE_WIDTH = 140
"""Characters of a line if the output goes into a file."""
_INTRODUCTION = """\
# Benchmarks

Made by `{command}`; do not edit. Absolute times are those of one machine. The ratios between programs that took turns
on it are comparable.

All programs work on the same pictures at the same size, start from the content, use the same weights (the VGG-19 of
Simonyan & Zisserman) and minimise the same function: the content loss at relu4_2 and the Gram losses at relu1_1 to
relu5_1, in the scaling and with the weights of nst's preset "reference". {variation}

Each program runs unmodified in a process of its own. One judge, the engine of nst in float32, computes all losses at
full size from the pictures of the programs, clamped to [0, 1].

The clock of a program starts with its first evaluation, so that imports, weights and targets do not count. It stops
while a picture is kept.
"""

_WITHOUT_VARIATION = "The total variation is left out, because not all programs have the same one."
_WITH_VARIATION = (
    "The total variation is left out for pystiche, which has another one, and for stylemod, which has none."
)


def main() -> None:
    """Report on the results of an earlier run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="JSON file of an earlier run")
    parser.add_argument("--docs", type=Path, help="folder for benchmarks.md")
    args = parser.parse_args()
    results = json.loads(args.results.read_text())
    show(results)
    if args.docs:
        write(results, args.docs)


def show(results: Results) -> None:
    """Print every table."""
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    for table in tables(results):
        shown = RichTable(title=table.title, caption=table.text, title_justify="left", caption_justify="left")
        for number, column in enumerate(table.columns):
            shown.add_column(column, justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def write(results: Results, docs: Path) -> None:
    """Write benchmarks.md and its plots into a folder."""
    (docs / _IMAGES).mkdir(parents=True, exist_ok=True)
    # Plots of the same figures are the same files.
    mpl.rcParams["svg.hashsalt"] = "nst"
    plots = list(_plots(results, docs))
    variation = results["race"]["settings"]["tv_weight"] if "race" in results else 0
    introduction = _INTRODUCTION.format(
        command=results["command"],
        variation=_WITH_VARIATION if variation else _WITHOUT_VARIATION,
    )
    parts = [
        introduction,
        "\n".join(f"- {name}: {value}" for name, value in results["machine"].items()),
        *(f"![{alt}]({path.as_posix()})" for alt, path in plots),
        *(table.markdown() for table in tables(results)),
    ]
    (docs / "benchmarks.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


def _plots(results: Results, docs: Path) -> Iterator[tuple[str, Path]]:
    """Draw every plot. Yield a description and the path of each, relative to the folder."""
    if "race" in results:
        race = results["race"]
        for pair in race["pairs"]:
            path = _IMAGES / f"{pair}.svg"
            _save(_loss_plot(race, pair), docs / path)
            yield f"Loss against seconds: {pair}", path
    if "growth" in results:
        path = _IMAGES / "growth.svg"
        _save(_growth_plot(results["growth"]), docs / path)
        yield "Seconds per evaluation against megapixels", path


def _loss_plot(race: dict[str, Any], pair: str) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for program in race["programs"]:
        runs = [run for run in race["runs"][program["name"]] if run["pair"] == pair]
        for run in runs[:1]:
            points = run["points"]
            axes.plot(
                [point["seconds"] for point in points],
                [point["loss"] for point in points],
                label=program["name"],
                linewidth=1.2 if program["is_competitor"] else 2.4,
            )
    axes.set(title=f"{pair}, {race['settings']['size']} px", xlabel="seconds", ylabel="loss", yscale="log")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _growth_plot(growth: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    pixels, seconds = (by_size(growth["runs"], field) for field in ("pixels", "evaluation_seconds"))
    megapixels = [count / 1e6 for count in pixels.values()]
    pace = min(seconds[size] / pixels[size] * 1e6 for size in seconds)
    axes.plot(megapixels, list(seconds.values()), marker="o", label="nst")
    axes.plot(megapixels, [pace * count for count in megapixels], linestyle=":", label="linear, at the best pace")
    axes.set(xlabel="megapixels", ylabel="seconds per evaluation", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
