from collections import Counter

from nst_service.jobs.fair_queue import FairQueue


def turns(queue: FairQueue[str], number: int, seconds: dict[str, float]) -> list[str]:
    taken = []
    for _ in range(number):
        flow = queue.next()
        queue.charge(flow, seconds[flow])
        taken.append(flow)
    return taken


def queue_of(**weights: float) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for flow, weight in weights.items():
        queue.join(flow, weight)
    return queue


def test_equals_take_turns_in_the_order_they_came():
    assert turns(queue_of(a=1, b=1), 6, {"a": 1, "b": 1}) == ["a", "b"] * 3


def test_time_and_not_turns_is_shared_by_weight():
    seconds = {"long": 8.0, "short": 1.0}
    taken = Counter(turns(queue_of(long=1, short=3), 25 * 25, seconds))
    assert taken["short"] * seconds["short"] == 3 * taken["long"] * seconds["long"]


def test_who_joins_goes_before_whoever_had_the_last_turn():
    queue = queue_of(long=1)
    turns(queue, 3, {"long": 10})
    queue.join("short", 1)
    # As if it had been there when the last turn began: it has until then to catch up, and no more.
    assert turns(queue, 21, {"long": 10, "short": 1}) == ["short"] * 10 + ["long"] + ["short"] * 10


def test_who_joins_has_no_claim_to_what_the_others_used_before():
    queue = queue_of(first=1)
    turns(queue, 1000, {"first": 1})
    queue.join("second", 1)
    assert Counter(turns(queue, 100, {"first": 1, "second": 1}))["first"] >= 49


def test_who_stays_is_not_starved_by_those_that_come_and_go():
    queue = queue_of(stays=1)
    seconds = {"stays": 10.0}
    turns(queue, 1, seconds)
    order = []
    for number in range(100):
        guest = f"guest {number}"
        queue.join(guest, 1)
        while (flow := queue.next()) != guest:
            order += turns(queue, 1, seconds)
        queue.charge(guest, 1)
        queue.leave(guest)
        order.append(flow)
    assert order.count("stays") in (9, 10)


def test_who_comes_after_all_have_left_starts_even():
    queue = queue_of(a=1, b=1)
    turns(queue, 5, {"a": 1, "b": 3})
    queue.leave("a")
    queue.leave("b")
    queue.join("c", 1)
    queue.join("d", 1)
    assert turns(queue, 4, {"c": 1, "d": 1}) == ["c", "d", "c", "d"]


def test_the_lead_is_what_a_flow_gets_before_it_has_caught_up():
    queue = queue_of(a=1, b=2)
    queue.charge("a", 3)
    assert queue.lead("b", over="a") == 6
    assert queue.lead("a", over="b") == 0
