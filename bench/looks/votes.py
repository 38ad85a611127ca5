"""The votes of blind judges, counted as preferences between two contenders each. Pure functions."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.looks.sheets import RANKS_HEADING, Sheet

LEAST_RATE = 0.75
"""The share of comparisons in which a new default must be preferred to each other contender."""
_LINE = re.compile(r"^\s*[-*]?\s*`?(?P<sheet>\d+-\d+)`?\s*:(?P<ranking>[^(`]*)")
"""A line of a form: the name of a sheet, a ranking, and perhaps a reason in brackets."""


class VoteError(Exception):
    """A vote cannot be counted. The message says why."""


@dataclass(frozen=True, kw_only=True)
class Vote:
    """The ranks that a judge gave to the pictures of one sheet."""

    sheet: Sheet
    ranks: Mapping[str, int]
    """The rank of each contender; 0 is the best, and equals share a rank."""


@dataclass(frozen=True)
class Preference:
    """How often one contender was preferred to another."""

    wins: int
    ties: int
    losses: int

    @property
    def comparisons(self) -> int:
        """How often both were compared."""
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """The share of the comparisons that were won; a tie counts as half of one."""
        return (self.wins + self.ties / 2) / self.comparisons


def read_votes(form: str, sheets: Sequence[Sheet]) -> list[Vote]:
    """Return the votes of a form. Lines such as "1-01: C > A = D > B" count; all others are ignored.

    Raises:
        VoteError: a line ranks other labels than the sheet has, or a sheet has two lines.
    """
    known = {sheet.name: sheet for sheet in sheets}
    votes: dict[str, Vote] = {}
    # The example of the instructions is no vote.
    lines = form.rpartition(RANKS_HEADING)[2].splitlines()
    for match in filter(None, map(_LINE.match, lines)):
        name, ranking = match["sheet"], match["ranking"].strip().upper()
        if not ranking:
            continue
        if name not in known:
            raise VoteError(f"{name} is no sheet of the key")
        if name in votes:
            raise VoteError(f"{name} has two lines; accepted is one")
        places = [[label.strip() for label in place.split("=")] for place in ranking.split(">")]
        ranks = {label: rank for rank, place in enumerate(places) for label in place}
        sheet = known[name]
        if sorted(label for place in places for label in place) != sorted(sheet.labels):
            raise VoteError(f"{name} is ranked {ranking!r}; accepted is each of {', '.join(sheet.labels)} once")
        votes[name] = Vote(sheet=sheet, ranks={sheet.labels[label]: rank for label, rank in ranks.items()})
    return list(votes.values())


def unjudged(votes: Iterable[Vote], sheets: Sequence[Sheet]) -> list[str]:
    """Return the names of the sheets that nobody has ranked."""
    judged = {vote.sheet.name for vote in votes}
    return [sheet.name for sheet in sheets if sheet.name not in judged]


def preferences(votes: Sequence[Vote]) -> dict[tuple[str, str], Preference]:
    """Return how often each contender was preferred to each other one, for every pair that was compared."""
    counts: Counter[tuple[str, str, int]] = Counter()
    for vote in votes:
        for one, other in combinations(sorted(vote.ranks), 2):
            difference = vote.ranks[other] - vote.ranks[one]
            sign = (difference > 0) - (difference < 0)
            counts[one, other, sign] += 1
            counts[other, one, -sign] += 1
    compared = dict.fromkeys((one, other) for one, other, _ in counts)
    return {
        (one, other): Preference(counts[one, other, 1], counts[one, other, 0], counts[one, other, -1])
        for one, other in compared
    }


def vote_table(votes: Sequence[Vote]) -> list[str]:
    """Return lines with the preference rates of each size and of all, and the counts behind them.

    A row says how often its contender was preferred to that of each column: the rate, wins : ties : losses.
    """
    lines = []
    sizes = sorted({vote.sheet.size for vote in votes})
    groups = [(f"{size} px", [vote for vote in votes if vote.sheet.size == size]) for size in sizes]
    for title, some in [*groups, ("all sizes", votes)] if len(sizes) > 1 else groups:
        names = sorted({name for vote in some for name in vote.ranks})
        width = max(22, *(len(name) + 2 for name in names))
        lines += [
            f"{title}, {len(some)} sheets judged",
            f"{'preferred to':<20}" + "".join(f"{n:>{width}}" for n in names),
        ]
        counted = preferences(some)
        for one in names:
            cells = [_cell(counted.get((one, other))).rjust(width) for other in names]
            lines.append(f"{one:<20}" + "".join(cells))
        firsts = {name: sum(vote.ranks.get(name) == 0 for vote in some) for name in names}
        lasts = {name: sum(vote.ranks.get(name) == max(vote.ranks.values()) for vote in some) for name in names}
        lines += [f"{name}: first {firsts[name]}, last {lasts[name]} of {len(some)}" for name in names] + [""]
    return lines


def goal_table(votes: Sequence[Vote], name: str) -> tuple[list[str], bool]:
    """Return lines about the goal of one contender, and whether it is met.

    The goal is to be preferred to each other contender in at least `LEAST_RATE` of the comparisons. The pairs follow,
    those first where the contender does worst.
    """
    others = {other: found for (one, other), found in preferences(votes).items() if one == name}
    is_met = bool(others) and all(found.rate >= LEAST_RATE for found in others.values())
    lines = [f"{name} is preferred in at least {100 * LEAST_RATE:g} % of the comparisons"]
    for other, found in sorted(others.items()):
        lines.append(f"{'pass' if found.rate >= LEAST_RATE else 'FAIL'}  to {other:<24}{_cell(found)}")
    rates = []
    for pair in sorted({vote.sheet.pair for vote in votes}):
        counted = preferences([vote for vote in votes if vote.sheet.pair == pair])
        mine = [found for (one, _), found in counted.items() if one == name]
        if mine:
            rates.append(
                (sum(found.rate * found.comparisons for found in mine) / sum(f.comparisons for f in mine), pair)
            )
    lines += ["by pair, worst first:", *(f"{100 * rate:>5.0f} %  {pair}" for rate, pair in sorted(rates))]
    return lines, is_met


def _cell(preference: Preference | None) -> str:
    if preference is None:
        return "-"
    counts = f"{preference.wins} : {preference.ties} : {preference.losses}"
    return f"{100 * preference.rate:.0f} % ({counts})"
