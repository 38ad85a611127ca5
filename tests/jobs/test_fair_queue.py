from collections import Counter

from nst_service.jobs.fair_queue import FairQueue


def turns(share: FairQueue[str], number: int, seconds: dict[str, float]) -> list[str]:
    taken = []
    for _ in range(number):
        flow = share.next()
        share.charge(flow, seconds[flow])
        taken.append(flow)
    return taken


def shared(**weights: float) -> FairQueue[str]:
    share: FairQueue[str] = FairQueue()
    for flow, weight in weights.items():
        share.join(flow, weight)
    return share


def test_equals_take_turns_in_the_order_they_came():
    assert turns(shared(a=1, b=1), 6, {"a": 1, "b": 1}) == ["a", "b"] * 3


def test_time_and_not_turns_is_shared_by_weight():
    seconds = {"long": 8.0, "short": 1.0}
    taken = Counter(turns(shared(long=1, short=3), 25 * 25, seconds))
    assert taken["short"] * seconds["short"] == 3 * taken["long"] * seconds["long"]


def test_who_joins_goes_before_whoever_had_the_last_turn():
    share = shared(long=1)
    turns(share, 3, {"long": 10})
    share.join("short", 1)
    # As if it had been there when the last turn began: it has until then to catch up, and no more.
    assert turns(share, 21, {"long": 10, "short": 1}) == ["short"] * 10 + ["long"] + ["short"] * 10


def test_who_joins_has_no_claim_to_what_the_others_used_before():
    share = shared(first=1)
    turns(share, 1000, {"first": 1})
    share.join("second", 1)
    assert Counter(turns(share, 100, {"first": 1, "second": 1}))["first"] >= 49


def test_who_stays_is_not_starved_by_those_that_come_and_go():
    share = shared(stays=1)
    seconds = {"stays": 10.0}
    turns(share, 1, seconds)
    order = []
    for number in range(100):
        guest = f"guest {number}"
        share.join(guest, 1)
        while (flow := share.next()) != guest:
            order += turns(share, 1, seconds)
        share.charge(guest, 1)
        share.leave(guest)
        order.append(flow)
    assert order.count("stays") in (9, 10)


def test_who_comes_after_all_have_left_starts_even():
    share = shared(a=1, b=1)
    turns(share, 5, {"a": 1, "b": 3})
    share.leave("a")
    share.leave("b")
    share.join("c", 1)
    share.join("d", 1)
    assert turns(share, 4, {"c": 1, "d": 1}) == ["c", "d", "c", "d"]


def test_the_lead_is_what_a_flow_gets_before_it_has_caught_up():
    share = shared(a=1, b=2)
    share.charge("a", 3)
    assert share.lead("b", over="a") == 6
    assert share.lead("a", over="b") == 0
