"""The table of the measures of many results, and the goals that a default picture is held to. Pure functions."""

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.looks.measures import GRID_PERIODS, OCTAVES, Measures

MEDIAN_CONTRAST = (0.85, 1.15)
"""The accepted contrast of an octave relative to the style, as the median over the pairs."""
EACH_CONTRAST = (0.7, 1.3)
"""The accepted contrast of an octave relative to the style, of each pair."""
LEAST_CHROMA = 0.02
"""The RMS chroma of the style in an octave below which the chroma of the result there is not judged."""
MOST_PEAK = 3.0
"""The highest accepted peak of the spectrum at the period of a grid, over its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measures of one result."""

    contender: str
    pair: str
    size: int
    measures: Measures


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure over all pairs of a contender at a size."""

    name: str
    median: float
    least: tuple[float, str]
    """The least value and its pair."""
    most: tuple[float, str]
    """The largest value and its pair."""
    pairs: int
    """How many pairs count."""
    goal: str = ""
    """What is accepted; empty where nothing is asked."""
    is_met: bool = True


def rows(measured: Sequence[Measured]) -> Iterator[Row]:
    """Yield the rows of the results of one contender at one size."""
    for octave in OCTAVES:
        values = [(one.measures.luma_ratio(octave), one.pair) for one in measured]
        yield _contrast(f"luma, {octave // 2} to {octave} px", values)
    for octave in OCTAVES:
        judged = [one for one in measured if one.measures.style_contrast[octave].chroma >= LEAST_CHROMA]
        values = [(one.measures.chroma_ratio(octave), one.pair) for one in judged]
        if values:
            yield _contrast(f"chroma, {octave // 2} to {octave} px", values)
    for period in GRID_PERIODS:
        row = _row(f"grid of {period} px", [(one.measures.grid[period], one.pair) for one in measured])
        yield dataclasses.replace(row, goal=f"at most {MOST_PEAK:g}", is_met=row.most[0] <= MOST_PEAK)
    yield _row("palette distance", [(one.measures.palette, one.pair) for one in measured])
    yield _row("edges kept", [(one.measures.edges_kept, one.pair) for one in measured])
    yield _row("luma noise in flat parts", [(one.measures.noise.luma, one.pair) for one in measured])
    yield _row("chroma noise in flat parts", [(one.measures.noise.chroma, one.pair) for one in measured])


def _contrast(name: str, values: Sequence[tuple[float, str]]) -> Row:
    row = _row(name, values)
    median, each = (f"{low:g} to {high:g}" for low, high in (MEDIAN_CONTRAST, EACH_CONTRAST))
    return dataclasses.replace(
        row,
        goal=f"{median}, each {each}",
        is_met=(
            MEDIAN_CONTRAST[0] <= row.median <= MEDIAN_CONTRAST[1]
            and row.least[0] >= EACH_CONTRAST[0]
            and row.most[0] <= EACH_CONTRAST[1]
        ),
    )


def _row(name: str, values: Sequence[tuple[float, str]]) -> Row:
    """Return the row of a measure from its value for each pair."""
    median = statistics.median(value for value, _ in values)
    return Row(name=name, median=median, least=min(values), most=max(values), pairs=len(values))


def groups(measured: Sequence[Measured]) -> Iterator[tuple[int, str, list[Measured]]]:
    """Yield each size and contender with its results."""
    for size, contender in sorted({(one.size, one.contender) for one in measured}):
        yield size, contender, [one for one in measured if (one.size, one.contender) == (size, contender)]


def table(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield the lines of the tables of all contenders and sizes, each with its goals."""
    for size, contender, some in groups(measured):
        yield f"{contender}, {size} px, {len(some)} pairs"
        yield f"{'':<28}{'median':>8}  {'least':<34}{'most':<34}goal"
        failed = asked = 0
        for row in rows(some):
            failed, asked = failed + (not row.is_met), asked + bool(row.goal)
            verdict = f"{'pass' if row.is_met else 'FAIL'} ({row.goal})" if row.goal else ""
            least, most = (f"{_number(value)} {pair}" for value, pair in (row.least, row.most))
            yield f"{row.name:<28}{_number(row.median):>8}  {least:<34}{most:<34}{verdict}".rstrip()
        yield f"{asked - failed} of {asked} goals met"
        yield ""


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 0.1 else f"{value:.2f}"
