from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.records import StoredEvent
from nst_service.store.store import Store

from tests.store.builders import Place, new_job
from tests.store.pgbouncer import run_pgbouncer
from tests.store.postgres import Postgres

_THREADS = 6
_ROUNDS = 12
"""More than psycopg executes a statement before it prepares it by itself."""


@pytest.fixture
def url(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pgbouncer")
    # Its user must read the settings.
    for path in (folder, folder.parent, folder.parent.parent):
        path.chmod(path.stat().st_mode | 0o055)
    with run_pgbouncer(postgres, postgres.new_database(), folder) as url:
        yield url


@pytest.mark.usefixtures("postgres")
def test_servers_share_jobs_through_pgbouncer_in_transaction_pooling(url: str, tmp_path: Path) -> None:
    stores = [Place(tmp_path, url).open(lease_seconds=60) for _ in range(2)]

    def work(number: int) -> list[str]:
        store: Store = stores[number % len(stores)]
        jobs = []
        for _ in range(_ROUNDS):
            job = store.submit(new_job(), max_unfinished=2 * _THREADS).job
            store.heartbeat([job.id])
            lease = store.lease(job.id)
            assert lease is not None
            store.append(lease, [StoredEvent(sequence=lease.first_sequence, data=b"started")])
            store.save_checkpoint(lease, b"half")
            store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"picture")
            assert store.result(job.id) == b"picture"
            jobs.append(job.id)
        return jobs

    with ThreadPoolExecutor(_THREADS) as threads:
        jobs = [job_id for done in threads.map(work, range(_THREADS)) for job_id in done]
    assert {job.id for job in stores[0].jobs("ada", states=(), limit=1000)} == set(jobs)
    for store in stores:
        store.close()


@pytest.mark.parametrize("option", ["autocommit=false", "prepare_threshold=0"])
def test_an_option_that_would_change_the_transactions_is_refused(
    postgres: Postgres, tmp_path: Path, option: str
) -> None:
    with pytest.raises(ValueError, match=option.partition("=")[0]):
        Place(tmp_path, f"{postgres.new_database()}?{option}").open()


def test_an_option_of_the_url_reaches_the_database(postgres: Postgres, tmp_path: Path) -> None:
    store = Place(tmp_path, f"{postgres.new_database()}?application_name=paint&connect_timeout=7").open()
    with store._database.read() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar_one() == "paint"
        assert connection.connection.dbapi_connection.info.get_parameters()["connect_timeout"] == "7"
    store.close()
