import dataclasses
from collections.abc import Callable

import pytest
from nst_service.engine.options import Limits, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest

LIMITS = Limits(max_input_pixels=10**6, max_image_size=512, max_iterations=10**5, max_styles=2)


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
