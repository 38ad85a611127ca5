"""The setting `ray_devices`."""

import pytest
from nst_service.ray_devices import DeviceCount
from nst_service.reloaded import SettingError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpu:8", DeviceCount(True, 8, 8)),
        ("cpu:1", DeviceCount(False, 1, 1)),
        (" GPU:2-12 ", DeviceCount(True, 2, 12)),
    ],
)
def test_a_kind_and_a_number_are_read(text: str, expected: DeviceCount):
    assert DeviceCount.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "8", "gpu", "gpu:", "gpu:0", "gpu:-1", "gpu:2-1", "gpu:0-3", "gpu:1-", "gpu:1.5", "gpu:99999", "gpu:1,cpu:1"],
)
def test_anything_else_is_refused_with_what_is_accepted(text: str):
    with pytest.raises(SettingError) as caught:
        DeviceCount.parse(text)
    accepted = "gpu:N and cpu:N for N devices, gpu:N-M and cpu:N-M for N to M, from 1"
    assert str(caught.value) == f"ray_devices is {text!r}; accepted are {accepted}"
