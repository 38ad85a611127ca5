from nst_service.telemetry.rate_limit import RateLimit


def test_a_kind_is_allowed_a_few_times_in_a_minute_and_the_rest_is_counted():
    limit = RateLimit()
    assert sum(limit.allows("full", now / 100) for now in range(1000)) == 10
    assert list(limit.ended(59)) == []
    assert list(limit.ended(61)) == [("full", 990)]
    assert list(limit.ended(200)) == []
    assert limit.allows("full", 201)


def test_kinds_do_not_share_their_limit():
    limit = RateLimit()
    for _ in range(1000):
        limit.allows("full", 0)
    assert limit.allows("draining", 0)


def test_a_kind_within_its_limit_has_nothing_to_tell():
    limit = RateLimit()
    assert limit.allows("full", 0)
    assert list(limit.ended(1000)) == []
