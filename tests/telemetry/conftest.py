from tests.rpc.conftest import quick_start, request_

__all__ = ["quick_start", "request_"]
