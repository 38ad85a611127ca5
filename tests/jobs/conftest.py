import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from nst_service.engine.options import Limits, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import Observer
from nst_service.store.records import Retention
from nst_service.store.store import Store

from tests.jobs.builders import LIMITS, PlainCodec

# Fixtures are known where their names are.
from tests.jobs.cluster import cluster  # noqa: F401
from tests.store.conftest import postgres  # noqa: F401


@pytest.fixture
def open_job_store(tmp_path: Path) -> Callable[[], AsyncJobStore]:
    """Return a function that opens the same store again, as the next server does."""
    retention = Retention(max_age_seconds=3600, max_bytes=2**30, min_free_bytes=0)
    return lambda: AsyncJobStore(Store.open(tmp_path / "jobs", retention=retention, lease_seconds=10), PlainCodec())


@pytest.fixture
def open_observed_store(tmp_path: Path) -> Callable[[Observer], AsyncJobStore]:
    """Return a function that opens a store with an observer of its operations."""
    retention = Retention(max_age_seconds=3600, max_bytes=2**30, min_free_bytes=0)
    return lambda observer: AsyncJobStore(
        Store.open(tmp_path / "observed", retention=retention, lease_seconds=10), PlainCodec(), observer
    )


@pytest.fixture
def job_store(open_job_store: Callable[[], AsyncJobStore]) -> AsyncJobStore:
    return open_job_store()


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def make_request(content_png: bytes, style_png: bytes) -> Callable[..., TransferRequest]:
    """Return a function that makes a request of small pictures with the given options."""
    plain = TransferRequest(content=content_png, styles=(StyleInput(data=style_png),), options=TransferOptions())

    def make(**options) -> TransferRequest:
        return dataclasses.replace(plain, options=TransferOptions(**{"image_size": 48, "scales": 1} | options))

    return make
