import pytest
from nst_service.jobs.job_table import JobTable

from tests.jobs.builders import make_job


def table_of(*jobs) -> JobTable:
    table = JobTable()
    for job in jobs:
        table.add(job)
    return table


def test_a_job_is_found_by_its_id_until_it_is_removed():
    job = make_job()
    table = table_of(job)
    assert table.get(job.id) is job
    assert job.id in table
    table.remove(job)
    assert table.get(job.id) is None
    assert job.id not in table


def test_a_job_is_found_for_its_owner_only():
    job = make_job(owner="ann")
    table = table_of(job)
    assert table.owned(job.id, "ann") is job
    assert table.owned(job.id, "bob") is None
    assert table.owned("unknown", "ann") is None


def test_of_several_jobs_of_one_request_the_first_is_found():
    jobs = [make_job(owner="ann", request_id="one") for _ in range(2)]
    table = table_of(make_job(owner="bob", request_id="one"), make_job(owner="ann", request_id="two"), *jobs)
    assert table.of_request("ann", "one") is jobs[0]
    table.remove(jobs[0])
    assert table.of_request("ann", "one") is jobs[1]
    assert table.of_request("ann", "three") is None


def test_a_request_that_is_being_admitted_counts_as_a_waiting_job_of_its_owner():
    table = JobTable()
    table.waiting.append(make_job(owner="ann"))
    running = [make_job(owner="ann"), make_job(owner="bob")]
    with table.admitting("ann"), table.admitting("bob"):
        assert table.queue_length == 3
        assert table.held("ann", running) == 3
        assert table.held("bob", running) == 2
    assert table.queue_length == 1
    assert table.held("ann", running) == 2


def test_a_request_that_is_refused_does_not_count_any_more():
    table = JobTable()
    with pytest.raises(ZeroDivisionError), table.admitting("ann"):
        raise ZeroDivisionError
    assert table.queue_length == 0
