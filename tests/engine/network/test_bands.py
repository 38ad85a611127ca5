"""The first two convolutions in bands of rows, against the same as a whole."""

import pytest
import torch
from nst_service.engine.arena import NATIVE
from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.bands import convolve_in_bands, visit_in_bands
from nst_service.engine.network.convolution import FrozenConv
from nst_service.engine.network.layers import Window
from nst_service.engine.network.native import MAX_POOL
from nst_service.engine.network.pooling import pooling_epilogue
from nst_service.engine.network.stored_kernel import StoredKernel
from torch import Tensor

pytestmark = pytest.mark.skipif(not NATIVE, reason="the native kernel was not built")


def _convs() -> tuple[FrozenConv, FrozenConv]:
    generator = torch.Generator().manual_seed(0)

    def conv(inputs: int) -> FrozenConv:
        kernel = torch.randn(64, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
        return FrozenConv(StoredKernel(kernel), torch.randn(64, generator=generator) / 4, Backend.NATIVE)

    return conv(3), conv(64)


def _picture(height: int, width: int) -> Tensor:
    x = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("height", [1, 2, 63, 64, 65, 66, 129, 300, 321])
@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("pooling", [Pooling.MAX, Pooling.AVERAGE])
def test_bands_give_what_the_whole_gives(height: int, padding: Padding, pooling: Pooling):
    first, second = _convs()
    x = _picture(height, 21)
    weights = torch.rand(1, 64, height, 21, generator=torch.Generator().manual_seed(2))

    def visit(features: Tensor, window: Window) -> list[Tensor]:
        rows, columns = window
        return [(weights[..., rows, columns] * features).sum(), features.square().sum()]

    epilogue = pooling_epilogue(pooling)
    assert epilogue is not None
    pair = first.before(second, padding, epilogue)
    pooled, parts = convolve_in_bands(x, pair, visit)
    between = first(x, padding, relu=True)
    whole = second.fused(between, padding, epilogue)
    assert torch.equal(pooled, whole)
    gathered = [torch.stack(list(sums)).sum() for sums in zip(*parts, strict=True)]
    expected = visit(between, (slice(None), slice(None)))
    torch.testing.assert_close(gathered, expected)

    towards = torch.randn(whole.shape, generator=torch.Generator().manual_seed(3))
    ours, theirs = (
        torch.autograd.grad((y * towards).sum() + 2 * a - 3 * b, x)[0]
        for y, (a, b) in ((pooled, gathered), (whole, expected))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_every_row_is_seen_once_and_in_order():
    first, second = _convs()
    pair = first.before(second, Padding.ZERO, MAX_POOL)
    seen: list[int] = []

    def visit(features: Tensor, window: Window) -> list[Tensor]:
        rows, _ = window
        assert features.shape[2] == rows.stop - rows.start
        seen.extend(range(rows.start, rows.stop))
        return []

    pooled, parts = convolve_in_bands(_picture(500, 8), pair, visit)
    assert seen == list(range(500))
    assert not any(parts)
    assert pooled.shape == (1, 64, 250, 4)


def test_nothing_needs_to_be_visited():
    first, second = _convs()
    epilogue = pooling_epilogue(Pooling.AVERAGE)
    assert epilogue is not None
    pair = first.before(second, Padding.REFLECT, epilogue)
    x = _picture(130, 9)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), x)[0]
        for y in (
            convolve_in_bands(x, pair, None)[0],
            second.fused(first(x, Padding.REFLECT, relu=True), Padding.REFLECT, epilogue),
        )
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_last", [False, True])
def test_the_gradients_of_what_is_seen_and_of_what_follows_are_added(is_last: bool):
    x = torch.randn(1, 64, 150, 7, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    windows: list[Window] = []

    def visit(features: Tensor, window: Window) -> list[Tensor]:
        windows.append(window)
        return [features.square().sum(), features.sin().sum()]

    passed, parts = visit_in_bands(x, visit)
    assert [(rows.start, rows.stop) for rows, _ in windows] == [(0, 64), (64, 128), (128, 150)]
    squares, sines = (torch.stack(list(sums)).sum() for sums in zip(*parts, strict=True))
    value = squares + 2 * sines + (0 if is_last else (3 * passed).sum())
    expected = 2 * x + 2 * x.cos() + (0 if is_last else 3)
    torch.testing.assert_close(torch.autograd.grad(value, x)[0], expected.detach())


def test_what_is_visited_without_a_backward_pass_keeps_nothing():
    x = torch.ones(1, 32, 70, 5)
    with torch.no_grad():
        passed, parts = visit_in_bands(x, lambda features, _: [features.sum()])
    assert passed.grad_fn is None
    assert [values.item() for (values,) in parts] == [64 * 5 * 32, 6 * 5 * 32]


def test_some_bands_may_have_nothing_to_give():
    first, second = _convs()
    pair = first.before(second, Padding.ZERO, MAX_POOL)
    x = _picture(200, 9)

    def visit(features: Tensor, window: Window) -> list[Tensor]:
        return [features.square().sum()] if window[0].start >= 127 else []

    between = first(x, Padding.ZERO, relu=True)
    for first_row, parts in (
        (127, convolve_in_bands(x, pair, visit)[1]),
        (128, visit_in_bands(between, visit)[1]),
    ):
        assert [len(part) for part in parts] == [0, 0, 1, 1]
        value = torch.stack([part[0] for part in parts[2:]]).sum()
        expected = between[:, :, first_row:].square().sum()
        torch.testing.assert_close(value, expected)
        ours, theirs = (torch.autograd.grad(it, x, retain_graph=True)[0] for it in (value, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
