import pytest

from bench.looks.sheets import INSTRUCTIONS, Sheet
from bench.looks.votes import Preference, Vote, VoteError, goal_table, preferences, read_votes, unjudged, vote_table

SHEETS = [
    Sheet(name="1-01", pair="cat-ink", size=256, labels={"A": "new", "B": "old", "C": "other"}),
    Sheet(name="1-02", pair="cat-ink", size=512, labels={"A": "old", "B": "new"}),
]


def _form(*lines: str) -> str:
    return INSTRUCTIONS + "\n".join(lines) + "\n"


def test_a_ranking_gives_ranks_to_those_behind_the_labels():
    votes = read_votes(_form("1-01: B > A = C", "- `1-02`: b > a (A: noisy > B)"), SHEETS)
    assert [vote.ranks for vote in votes] == [{"old": 0, "new": 1, "other": 1}, {"new": 0, "old": 1}]
    assert [vote.sheet for vote in votes] == SHEETS


def test_a_form_without_its_instructions_counts_as_well():
    (vote,) = read_votes("1-02: B > A\n", SHEETS)
    assert vote.ranks == {"new": 0, "old": 1}


def test_sheets_without_a_ranking_are_named():
    votes = read_votes(_form("1-01: A > B > C", "1-02: "), SHEETS)
    assert unjudged(votes, SHEETS) == ["1-02"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1-01: A > B", r"1-01 is ranked 'A > B'; accepted is each of A, B, C once"),
        ("1-01: A > B > C > D", "accepted is each of A, B, C once"),
        ("1-01: A > B > B > C", "accepted is each of A, B, C once"),
        ("1-01: A B C", "accepted is each of A, B, C once"),
        ("1-09: A > B > C", "1-09 is no sheet of the key"),
        ("1-02: A > B\n1-02: B > A", "1-02 has two lines; accepted is one"),
    ],
)
def test_a_ranking_that_cannot_be_counted_is_refused(line, message):
    with pytest.raises(VoteError, match=message):
        read_votes(_form(line), SHEETS)


def test_preferences_count_wins_ties_and_losses_of_both_sides():
    votes = read_votes(_form("1-01: A > B = C", "1-02: A > B"), SHEETS)
    counted = preferences(votes)
    assert counted["new", "old"] == Preference(1, 0, 1)
    assert counted["old", "new"] == Preference(1, 0, 1)
    assert counted["old", "other"] == Preference(0, 1, 0)
    assert counted["new", "other"] == Preference(1, 0, 0)
    assert counted["other", "new"] == Preference(0, 0, 1)


def test_a_tie_is_half_of_a_win():
    assert Preference(2, 1, 1).rate == 0.625


def test_the_table_has_each_size_and_all_of_them():
    votes = [Vote(sheet=SHEETS[0], ranks={"new": 0, "old": 1, "other": 2}) for _ in range(3)]
    votes += [Vote(sheet=SHEETS[1], ranks={"new": 1, "old": 0})]
    lines = vote_table(votes)
    titles = [line for line in lines if line.endswith("judged")]
    assert titles == ["256 px, 3 sheets judged", "512 px, 1 sheets judged", "all sizes, 4 sheets judged"]
    last = lines[lines.index("all sizes, 4 sheets judged") :]
    new = next(line for line in last if line.startswith("new "))
    assert "75 % (3 : 0 : 1)" in new
    assert "100 % (3 : 0 : 0)" in new
    assert "new: first 3, last 1 of 4" in last


def test_the_goal_is_met_only_if_every_other_contender_is_beaten_in_three_of_four():
    votes = [Vote(sheet=SHEETS[0], ranks={"new": 0, "old": 1, "other": 1}) for _ in range(3)]
    votes += [Vote(sheet=SHEETS[0], ranks={"new": 1, "old": 0, "other": 2})]
    lines, is_met = goal_table(votes, "new")
    assert is_met
    assert [line[:4] for line in lines if " to " in line] == ["pass", "pass"]
    lines, is_met = goal_table([*votes, Vote(sheet=SHEETS[1], ranks={"new": 1, "old": 0})], "new")
    assert not is_met
    assert [line[:4] for line in lines if " to " in line] == ["FAIL", "pass"]


def test_the_pair_where_the_contender_does_worst_comes_first():
    dog = Sheet(name="1-03", pair="dog-ink", size=256, labels={"A": "new", "B": "old"})
    votes = [Vote(sheet=SHEETS[1], ranks={"new": 0, "old": 1}), Vote(sheet=dog, ranks={"new": 1, "old": 0})]
    lines, _ = goal_table(votes, "new")
    assert [line.split()[-1] for line in lines[-2:]] == ["dog-ink", "cat-ink"]


def test_a_contender_that_nobody_judged_has_not_met_the_goal():
    assert not goal_table([], "new")[1]
