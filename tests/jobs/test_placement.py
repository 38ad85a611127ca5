import math

import pytest
from nst_service.jobs.placement import Claim, Room, ends, placements, weight

ROOM = Room(jobs=4, memory=100)


def claim(seconds: float, *, memory: int = 1, slack: float = math.inf) -> Claim:
    return Claim(seconds=seconds, weight=weight(seconds), memory=memory, slack=slack)


def joined(running: list[Claim], *waiting: Claim, room: Room = ROOM) -> list[int]:
    """Return the places in the queue from which jobs join one device."""
    return [place for place, _ in placements([running], waiting, [room])]


def test_an_idle_device_takes_the_job_that_came_first():
    assert joined([], claim(10), claim(8)) == [0]


def test_equal_jobs_run_one_after_the_other():
    assert joined([claim(10)], *[claim(10)] * 7) == []


def test_a_short_job_joins_a_long_one():
    assert joined([claim(100)], claim(49)) == [0]
    assert joined([claim(100)], claim(50)) == []


def test_a_short_job_overtakes_a_long_one_that_waits():
    assert joined([claim(100)], claim(100), claim(10)) == [1]


def test_an_idle_device_takes_a_long_job_and_a_short_one_behind_it_together():
    assert joined([], claim(100), claim(10)) == [0, 1]


def test_of_several_short_jobs_the_first_joins_and_the_others_wait_for_it():
    assert joined([claim(100)], claim(10), claim(10), claim(10)) == [0]


def test_a_job_must_be_shorter_than_each_that_runs():
    assert joined([claim(100), claim(10)], claim(6), claim(4)) == [1]


def test_nobody_joins_where_nothing_is_known_of_the_time_that_jobs_take():
    assert joined([claim(0)], claim(0)) == []


def test_no_more_jobs_than_allowed_share_a_device():
    assert joined([claim(100)], claim(10), claim(1), room=Room(jobs=2, memory=100)) == [0]
    assert joined([claim(100)], claim(10), room=Room(jobs=1, memory=100)) == []


def test_a_job_whose_memory_does_not_fit_beside_the_others_waits_and_a_smaller_one_passes_it():
    assert joined([claim(100, memory=90)], claim(10, memory=11), claim(10, memory=10)) == [1]


def test_a_job_alone_has_all_the_memory():
    assert joined([], claim(100, memory=1000)) == [0]


def test_no_job_joins_at_the_cost_of_a_deadline_that_would_be_met():
    assert joined([claim(100, slack=109)], claim(10)) == []
    assert joined([claim(100, slack=111)], claim(10)) == [0]


def test_a_deadline_that_is_missed_anyway_holds_nobody_back():
    assert joined([claim(100, slack=99)], claim(10)) == [0]


def test_no_job_overtakes_one_that_would_miss_its_deadline_by_it():
    assert joined([claim(100)], claim(80, slack=189), claim(10)) == []
    assert joined([claim(100)], claim(80, slack=191), claim(10)) == [1]


def test_a_job_goes_to_the_idle_device_and_else_to_the_one_with_the_least_to_do():
    rooms = [ROOM, ROOM]
    assert list(placements([[claim(100)], []], [claim(10)], rooms)) == [(0, 1)]
    assert list(placements([[claim(100)], [claim(90)]], [claim(10)], rooms)) == [(0, 1)]


def test_a_job_sixteen_times_as_long_has_half_the_weight():
    assert weight(16 * 7) == pytest.approx(weight(7) / 2)
    assert weight(0) > 0


def test_a_job_ends_when_it_has_had_its_time_and_the_others_their_share_meanwhile():
    equal = [Claim(seconds=seconds, weight=1, memory=0) for seconds in (3, 10)]
    assert ends(equal) == [6, 13]
    favoured = [Claim(seconds=4, weight=2, memory=0), Claim(seconds=10, weight=1, memory=0)]
    assert ends(favoured) == [6, 14]
    assert ends([claim(5)]) == [5]
