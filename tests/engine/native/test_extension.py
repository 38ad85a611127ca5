"""The binding of the native kernel: wrong arguments are refused by name, and nothing is read or written."""

import importlib.util
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from nst_service.engine import native
from nst_service.engine.arena import empty_features
from torch.utils.dlpack import to_dlpack

pytestmark = pytest.mark.skipif(native.extension is None, reason="the native kernel was not built")

_INPUTS, _OUTPUTS, _HEIGHT, _WIDTH = 32, 64, 10, 9


def _rows(channels: int, height: int, width: int, dtype: torch.dtype = torch.float32, first: int = 0) -> Any:
    return to_dlpack(empty_features(channels, height, width, dtype).zero_()), first


def _weights(count: int, dtype: torch.dtype = torch.float32) -> Any:
    return to_dlpack(torch.zeros(count, dtype=dtype))


def _forward(**changed: Any) -> dict[str, Any]:
    return {
        "x": _rows(_INPUTS, _HEIGHT, _WIDTH),
        "kernel": _weights(9 * _INPUTS * _OUTPUTS),
        "table": None,
        "bias": _weights(_OUTPUTS),
        "y": _rows(_OUTPUTS, _HEIGHT, _WIDTH),
        "kept": _rows(_OUTPUTS, 3, 3, torch.int16),
        "height": _HEIGHT,
        "first_row": 0,
        "end_row": _HEIGHT,
        "mirrored": True,
        "epilogue": 1,
        "scale": 1.0,
        "threads": 1,
        **changed,
    }


def _backward(**changed: Any) -> dict[str, Any]:
    arguments = _forward()
    arguments["gradient"] = arguments.pop("y")
    arguments["grad_input"] = arguments.pop("x")
    del arguments["bias"]
    return arguments | changed


def _max_pool(**changed: Any) -> dict[str, Any]:
    x, y = (_rows(33, *size)[0] for size in ((5, 7), (3, 4)))
    return {"x": x, "y": y, "threads": 1, **changed}


def _max_pool_backward(**changed: Any) -> dict[str, Any]:
    x, gradient, grad_input = (_rows(33, *size)[0] for size in ((5, 7), (3, 4), (5, 7)))
    return {"x": x, "gradient": gradient, "grad_input": grad_input, "threads": 1, **changed}


def _take(**changed: Any) -> dict[str, Any]:
    return {"size": 100, "permanent": False, **changed}


_FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    "forward": _forward,
    "backward": _backward,
    "max_pool": _max_pool,
    "max_pool_backward": _max_pool_backward,
    "take": _take,
}
_OF_A_CONVOLUTION = ["forward", "backward"]


def _call(function: str, **changed: Any) -> Any:
    return getattr(native.extension, function)(**_FUNCTIONS[function](**changed))


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_right_arguments_are_taken(function: str):
    _call(function)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_a_missing_argument_is_named(function: str):
    for name in _FUNCTIONS[function]():
        arguments = _FUNCTIONS[function]()
        del arguments[name]
        with pytest.raises(TypeError, match=rf"{function}\(\) is missing the argument '{name}'"):
            getattr(native.extension, function)(**arguments)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_an_unknown_argument_is_named(function: str):
    with pytest.raises(TypeError, match=rf"{function}\(\) has no argument 'straße'"):
        _call(function, straße=1)


def test_more_arguments_than_any_function_has_are_refused():
    with pytest.raises(TypeError, match=r"take\(\) takes fewer arguments"):
        _call("take", **{f"argument_{number}": number for number in range(100)})


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_positional_arguments_are_refused(function: str):
    with pytest.raises(TypeError, match=rf"{function}\(\) takes keyword arguments only"):
        getattr(native.extension, function)(1)


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize("wrong", ["text", 2**70 + 0.5, object(), torch.zeros(3), (), (1, 2), (None, 0)])
def test_an_argument_of_a_wrong_type_is_named(function: str, wrong: object):
    for name in _FUNCTIONS[function]():
        if name != "scale" or not isinstance(wrong, float):
            with pytest.raises(TypeError, match=rf"{function}\(\) argument '{name}' must be "):
                _call(function, **{name: wrong})


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
def test_a_scale_is_any_number_that_a_float_holds(function: str):
    _call(function, scale=1)
    with pytest.raises(TypeError, match="argument 'scale' must be a float"):
        _call(function, scale=2**5000)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_an_address_is_no_tensor(function: str):
    for name, value in _FUNCTIONS[function]().items():
        if not isinstance(value, int | float):
            with pytest.raises(TypeError, match=f"argument '{name}'"):
                _call(function, **{name: torch.zeros(100_000).data_ptr()})


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("height", 0),
        ("height", _HEIGHT - 1),
        ("height", 2**31),
        ("first_row", -4),
        ("first_row", 2),
        ("first_row", 12),
        ("end_row", 0),
        ("end_row", 7),
        ("end_row", _HEIGHT + 1),
        ("end_row", 2**64),
        ("epilogue", -1),
        ("epilogue", 4),
        ("threads", 0),
    ],
)
def test_numbers_that_fit_nothing_are_refused(function: str, name: str, value: int):
    with pytest.raises(ValueError, match=rf"{function}\(\) argument '"):
        _call(function, **({"first_row": 4} if value == 0 and name == "end_row" else {}) | {name: value})


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
def test_features_of_another_size_are_refused(function: str):
    into, out = ("x", "y") if function == "forward" else ("grad_input", "gradient")
    wrong = {
        into: [(_INPUTS + 1, _HEIGHT, _WIDTH), (_INPUTS, _HEIGHT - 1, _WIDTH), (64, _HEIGHT, _WIDTH)],
        out: [(_OUTPUTS + 1, _HEIGHT, _WIDTH), (_OUTPUTS, _HEIGHT - 1, _WIDTH), (_OUTPUTS, _HEIGHT, _WIDTH + 1)],
    }
    for name, sizes in wrong.items():
        for size in sizes:
            with pytest.raises(ValueError, match=rf"{function}\(\) argument '"):
                _call(function, **{name: _rows(*size)})
    for size in [(_OUTPUTS, 2, 3), (_OUTPUTS, 3, 2), (_OUTPUTS + 32, 3, 3)]:
        with pytest.raises(ValueError, match="argument 'kept'"):
            _call(function, kept=_rows(*size, torch.int16))


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
@pytest.mark.parametrize("epilogue", [2, 3])
def test_pooled_features_have_half_the_size(function: str, epilogue: int):
    name = "y" if function == "forward" else "gradient"
    _call(function, epilogue=epilogue, **{name: _rows(_OUTPUTS, 5, 5)})
    for size in [(4, 5), (5, 4), (_HEIGHT, _WIDTH)]:
        with pytest.raises(ValueError, match=f"argument '{name}'"):
            _call(function, epilogue=epilogue, **{name: _rows(_OUTPUTS, *size)})


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
def test_bands_need_a_row_before_and_after_them(function: str):
    into, out = ("x", "y") if function == "forward" else ("grad_input", "gradient")
    band = {"first_row": 4, "end_row": 8, out: _rows(_OUTPUTS, 4, _WIDTH, first=4)}
    _call(function, **band, **{into: _rows(_INPUTS, 6, _WIDTH, first=3)})
    for rows, first in [(5, 3), (5, 4), (6, 4), (6, 2)]:
        with pytest.raises(ValueError, match=f"argument '{into}' must be of all rows"):
            _call(function, **band, **{into: _rows(_INPUTS, rows, _WIDTH, first=first)})
    for first in [-1, 2**31]:
        with pytest.raises(ValueError, match=f"argument '{into}'"):
            _call(function, **band, **{into: _rows(_INPUTS, 6, _WIDTH, first=first)})


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
def test_weights_of_another_size_or_type_are_refused(function: str):
    right = 9 * _INPUTS * _OUTPUTS
    with pytest.raises(ValueError, match="argument 'kernel'"):
        _call(function, kernel=_weights(right - 1))
    with pytest.raises(TypeError, match="argument 'kernel' must be a float32 tensor"):
        _call(function, kernel=_weights(right, torch.float64))
    with pytest.raises(TypeError, match="argument 'kernel' must be a uint8 tensor"):
        _call(function, table=_weights(256))
    indices = _weights(right, torch.uint8)
    _call(function, kernel=indices, table=_weights(256))
    with pytest.raises(TypeError, match="argument 'kernel' must be a float32 tensor"):
        _call(function, kernel=indices)
    with pytest.raises(ValueError, match="argument 'table'"):
        _call(function, kernel=indices, table=_weights(255))
    with pytest.raises(ValueError, match="argument 'kernel' must be contiguous"):
        _call(function, kernel=to_dlpack(torch.zeros(2 * right)[::2]))


@pytest.mark.parametrize("function", _OF_A_CONVOLUTION)
def test_few_inputs_are_neither_pooled_nor_coded(function: str):
    into, count = ("x", 9 * 3 * _OUTPUTS) if function == "forward" else ("grad_input", _OUTPUTS * 32)
    few = {into: _rows(3, _HEIGHT, _WIDTH), "kernel": _weights(count), "kept": _rows(_OUTPUTS, _HEIGHT, _WIDTH)}
    _call(function, **few)
    with pytest.raises(ValueError, match="argument 'epilogue' must be from 0 to 1"):
        _call(function, **few | {"epilogue": 2})
    with pytest.raises(ValueError, match="argument 'table' must be None"):
        _call(function, **few | {"table": _weights(256)})


@pytest.mark.parametrize("function", [name for name in _FUNCTIONS if name != "take"])
def test_features_in_another_memory_order_or_number_of_dimensions_are_refused(function: str):
    for name in {"x", "grad_input", "gradient"} & set(_FUNCTIONS[function]()):
        for wrong, message in [
            (torch.zeros(1, 32, 10, 9), "in channels-last memory order"),
            (torch.zeros(32, 10, 9), "of the shape"),
            (torch.zeros(2, 32, 10, 9), "of the shape"),
            (torch.zeros(1, 32, 0, 9), "of a size"),
        ]:
            capsule = to_dlpack(wrong)
            with pytest.raises(ValueError, match=f"argument '{name}' must be {message}"):
                _call(function, **{name: (capsule, 0) if function in _OF_A_CONVOLUTION else capsule})


def test_pooled_features_of_another_size_are_refused():
    for size in [(33, 2, 4), (33, 3, 3), (32, 3, 4)]:
        with pytest.raises(ValueError, match="argument 'y'"):
            _call("max_pool", y=_rows(*size)[0])
        with pytest.raises(ValueError, match="argument 'gradient'"):
            _call("max_pool_backward", gradient=_rows(*size)[0])
    with pytest.raises(ValueError, match="argument 'grad_input'"):
        _call("max_pool_backward", grad_input=_rows(33, 6, 7)[0])


def test_blocks_that_cannot_be_are_refused():
    for size in [-1, 0, 2**64]:
        with pytest.raises(ValueError, match="argument 'size'"):
            _call("take", size=size)
    assert _call("take", size=2**62) is None
    assert len(memoryview(_call("take", size=100))) == 100


def test_a_block_is_only_made_by_the_arena():
    with pytest.raises(TypeError, match="Block"):
        native.extension.Block()


def test_a_tensor_lives_for_as_long_as_its_capsule():
    x = empty_features(32, 64, 64).fill_(3)
    y = empty_features(32, 32, 32)
    capsule = to_dlpack(x)
    del x
    empty_features(32, 64, 64).fill_(5)
    native.extension.max_pool(x=capsule, y=to_dlpack(y), threads=1)
    native.extension.max_pool(x=capsule, y=to_dlpack(y), threads=1)
    assert (y == 3).all()


def _loaded(monkeypatch: pytest.MonkeyPatch, interface: int) -> ModuleType:
    monkeypatch.setattr(native, "_extension", SimpleNamespace(INTERFACE=interface), raising=False)
    spec = importlib.util.spec_from_file_location("loaded", native.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_kernel_that_was_built_for_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch):
    with pytest.warns(RuntimeWarning, match="run `make setup`"):
        module = _loaded(monkeypatch, native._INTERFACE + 1)
    assert module.extension is None


def test_a_kernel_that_was_built_for_this_version_is_used(monkeypatch: pytest.MonkeyPatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = _loaded(monkeypatch, native._INTERFACE)
    assert module.extension.INTERFACE == native._INTERFACE
