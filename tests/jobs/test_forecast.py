import math

import pytest
from nst_service.jobs.forecast import Span, forecast
from nst_service.jobs.placement import Claim, Room

ROOM = Room(jobs=4, memory=100)


def claim(seconds: float, slack: float = math.inf) -> Claim:
    return Claim(seconds=seconds, weight=1, memory=1, slack=slack)


def test_equal_jobs_follow_one_another():
    assert forecast([[claim(10)]], [claim(10), claim(10)], [ROOM]) == [Span(10, 20), Span(20, 30)]


def test_a_short_job_starts_at_once_and_shares_the_device():
    assert forecast([[claim(100)]], [claim(10)], [ROOM]) == [Span(0, 20)]


def test_the_next_short_job_starts_when_the_first_ends_and_a_long_one_when_all_have_ended():
    spans = forecast([[claim(100)]], [claim(100), claim(10), claim(10)], [ROOM])
    assert spans == [Span(120, 220), Span(0, 20), Span(20, 40)]


def test_several_devices_take_a_job_each():
    spans = forecast([[claim(10)], []], [claim(10), claim(10), claim(10)], [ROOM, ROOM])
    assert spans == [Span(0, 10), Span(10, 20), Span(10, 20)]


def test_a_short_job_waits_as_long_as_it_would_make_others_miss_their_deadlines():
    spans = forecast([[claim(50)]], [claim(100, slack=160), claim(20)], [ROOM])
    assert spans == [Span(50, 150), Span(150, 170)]


def test_nothing_waits_for_nothing():
    assert forecast([[claim(10)]], [], [ROOM]) == []


def test_jobs_of_no_known_length_start_now():
    assert forecast([[claim(0)]], [claim(0)] * 3, [ROOM]) == [Span(0, 0)] * 3


def test_odd_lengths_come_to_an_end():
    lengths = [0.1 + math.sin(number) ** 2 for number in range(60)]
    spans = forecast([[claim(1 / 3)]], [claim(length) for length in lengths], [ROOM])
    assert max(span.end for span in spans) == pytest.approx(1 / 3 + sum(lengths))
