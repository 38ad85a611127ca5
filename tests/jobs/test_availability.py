import pytest
from nst_service.jobs.availability import Availability
from nst_service.jobs.errors import NotServingError, Unavailability


def refusal(availability: Availability) -> Unavailability | None:
    try:
        availability.check()
    except NotServingError as error:
        return error.reason
    return None


def test_a_new_server_is_warming_up():
    availability = Availability()
    assert refusal(availability) is Unavailability.WARMING_UP
    assert not availability.is_serving
    assert not availability.is_draining


def test_a_server_that_serves_refuses_nothing():
    availability = Availability()
    availability.serve()
    availability.check()
    assert availability.is_serving


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_drain_never_ends(is_warm: bool):
    availability = Availability()
    if is_warm:
        availability.serve()
    availability.drain()
    availability.serve()
    assert refusal(availability) is Unavailability.DRAINING
    assert availability.is_draining
    assert not availability.is_serving
