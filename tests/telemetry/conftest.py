import logging
from collections.abc import Iterator

import pytest
from nst_service.store.errors import failures_log

from tests.rpc.conftest import quick_start, request_

__all__ = ["quick_start", "request_"]


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """The loggers have the handlers and levels of the tests again afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("nst_service"), failures_log]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    logging.captureWarnings(False)
    logging.getLogger("grpc._cython.cygrpc").filters.clear()
    for logger, handlers, level in before:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)
