import pytest

from tests.rpc.conftest import quick_start, request_

__all__ = ["quick_start", "request_"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
