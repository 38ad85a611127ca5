import pytest
from nst_service.memory_budget import divide
from nst_service.reloaded import SettingError

_MIB = 2**20
_DEFAULTS = {"resting": 500 * _MIB, "max_request_bytes": 64 * _MIB, "max_calls": 2048, "decoders": 2}


@pytest.mark.parametrize("total", [2 * 1024, 4 * 1024, 16 * 1024, 256 * 1024])
def test_the_parts_together_are_no_more_than_the_memory(total: int):
    budget = divide(total * _MIB, **_DEFAULTS)
    parts = budget.pending + budget.delivery + 2 * budget.decoder + budget.jobs
    assert parts + _DEFAULTS["resting"] < budget.total == total * _MIB
    assert budget.jobs > 0.4 * (budget.total - _DEFAULTS["resting"] - 600 * _MIB)


def test_a_large_machine_has_the_limits_of_earlier_releases():
    budget = divide(64 * 1024 * _MIB, **_DEFAULTS)
    assert (budget.pending, budget.decoder) == (512 * _MIB, 2048 * _MIB)


def test_a_setting_of_its_own_keeps_its_meaning():
    assert divide(8 * 1024 * _MIB, pending=77 * _MIB, **_DEFAULTS).pending == 77 * _MIB


def test_too_little_memory_is_an_error_that_says_how_much_is_needed():
    with pytest.raises(SettingError, match=r"memory_bytes is 838860800, .* needs about \d+ MiB") as caught:
        divide(800 * _MIB, **_DEFAULTS)
    needed = int(str(caught.value).split("about ")[1].split()[0])
    assert divide(needed * _MIB, **_DEFAULTS).jobs >= 160 * _MIB
