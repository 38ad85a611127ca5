import pytest
import torch
from nst_service.engine.devices import DeviceError, resolve_devices, resolve_precision
from nst_service.engine.network.precision import Precision

CPU = [torch.device("cpu")]


def test_a_device_that_is_not_there_is_refused_by_its_name():
    with pytest.raises(DeviceError, match=r"'cuda:99' is not available.*accepted are auto, cpu, cuda and cuda:N"):
        resolve_devices("cpu,cuda:99")


def test_a_device_that_is_named_twice_is_taken_once():
    assert resolve_devices("cpu, cpu") == CPU


def test_a_cpu_computes_in_float32():
    assert resolve_precision("auto", CPU) is Precision.FLOAT32
    assert resolve_precision("float32", CPU) is Precision.FLOAT32


@pytest.mark.parametrize("choice", ["tf32", "bfloat16"])
def test_a_precision_that_a_device_does_not_have_is_refused(choice: str):
    with pytest.raises(DeviceError, match=f"'{choice}' needs a GPU of compute capability 8.0 or later.*'cpu' is not"):
        resolve_precision(choice, CPU)


def test_an_unknown_precision_is_refused():
    with pytest.raises(DeviceError, match="'half' is unknown; accepted are auto, float32, tf32, bfloat16"):
        resolve_precision("half", CPU)
