import pytest
from hypothesis import given
from hypothesis import strategies as st
from nst_service.jobs.errors import NotPermittedError, QuotaExceededError
from nst_service.jobs.quotas import ANYONE, Owner, Quota, check_job, check_jobs

amounts = st.integers(min_value=0, max_value=2**40)


def owner(**quota: int) -> Owner:
    return Owner(name="ann", quota=Quota(**quota))


@given(amounts, amounts)
def test_who_has_no_quota_may_ask_for_anything(first: int, second: int):
    check_jobs(ANYONE, first)
    check_job(ANYONE, pixels=first, iterations=second)


@given(st.integers(min_value=1, max_value=100), st.integers(min_value=0, max_value=100))
def test_an_owner_has_as_many_jobs_as_the_quota_says_and_no_more(accepted: int, held: int):
    if held < accepted:
        check_jobs(owner(jobs=accepted), held)
    else:
        with pytest.raises(QuotaExceededError) as caught:
            check_jobs(owner(jobs=accepted), held)
        violation = caught.value.violations[0]
        assert (violation.quota, violation.asked, violation.accepted) == ("jobs", held + 1, accepted)
        assert not caught.value.is_lasting


def test_an_owner_whose_quota_is_no_jobs_is_not_asked_to_wait():
    with pytest.raises(NotPermittedError):
        check_jobs(owner(jobs=0), 0)


@given(amounts, amounts, amounts, amounts)
def test_a_job_is_refused_for_exactly_what_is_more_than_the_quota(pixels: int, iterations: int, wide: int, long: int):
    expected = {
        name for name, asked, most in (("pixels", wide, pixels), ("iterations", long, iterations)) if asked > most
    }
    if not expected:
        check_job(owner(pixels=pixels, iterations=iterations), pixels=wide, iterations=long)
    else:
        with pytest.raises(QuotaExceededError) as caught:
            check_job(owner(pixels=pixels, iterations=iterations), pixels=wide, iterations=long)
        assert {violation.quota for violation in caught.value.violations} == expected
        assert caught.value.is_lasting


def test_the_message_says_what_was_asked_and_what_is_accepted():
    with pytest.raises(QuotaExceededError, match="500 iterations requested, at most 100 accepted"):
        check_job(owner(iterations=100), pixels=1, iterations=500)
