import pytest
import torch
from nst_service.engine.arena import NATIVE
from nst_service.engine.choices import Padding
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.convolution import FrozenConv
from nst_service.engine.network.native import NativeConv
from nst_service.engine.network.stored_kernel import StoredKernel
from torch import Tensor
from torch.nn import functional


@pytest.fixture(params=list(Backend))
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend; the native one where the kernel was built."""
    if request.param is Backend.NATIVE and not NATIVE:
        pytest.skip("the native kernel was not built")
    return request.param


def _reference(x: Tensor, kernel: Tensor, bias: Tensor, padding: Padding, *, relu: bool) -> Tensor:
    if padding is Padding.REFLECT:
        height, width = x.shape[-2:]
        x = functional.pad(x, (1, 1, 0, 0), mode="reflect" if width > 1 else "replicate")
        x = functional.pad(x, (0, 0, 1, 1), mode="reflect" if height > 1 else "replicate")
    y = functional.conv2d(x, kernel, bias, padding=0 if padding is Padding.REFLECT else 1)
    return functional.relu(y) if relu else y


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 5), (16, 16), (17, 30), (5, 700)])
@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (128, 128), (128, 192)])
def test_a_convolution_and_its_gradient_are_those_of_torch(
    channels: tuple[int, int], size: tuple[int, int], padding: Padding, relu: bool, backend: Backend
):
    inputs, outputs = channels
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    x = torch.randn(1, inputs, *size, generator=generator).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    ours = FrozenConv(StoredKernel(kernel), bias, backend)(x, padding, relu=relu)
    theirs = _reference(x.double(), kernel.double(), bias.double(), padding, relu=relu)
    assert ours.shape == theirs.shape == (1, outputs, *size)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    towards = torch.randn(theirs.shape, generator=generator)
    mine, other = (torch.autograd.grad((y * towards).sum(), x)[0] for y in (ours, theirs))
    assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert (mine - other).norm() <= 1e-5 * other.norm()


def test_the_native_kernel_gives_the_same_bytes_whatever_the_number_of_threads():
    if not NATIVE:
        pytest.skip("the native kernel was not built")
    conv = FrozenConv(StoredKernel(torch.randn(64, 64, 3, 3)), torch.randn(64), Backend.NATIVE)
    x = torch.randn(1, 64, 90, 130).contiguous(memory_format=torch.channels_last).requires_grad_()
    threads = torch.get_num_threads()

    def run() -> tuple[Tensor, Tensor]:
        y = conv(x, Padding.REFLECT, relu=True)
        return y, torch.autograd.grad(y.sum(), x)[0]

    first = run()
    try:
        torch.set_num_threads(3)
        second = run()
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_layers_with_many_channels_take_the_native_kernel_where_it_was_built():
    if not NATIVE:
        pytest.skip("the native kernel was not built")
    conv = FrozenConv(StoredKernel(torch.randn(64, 64, 3, 3)), torch.randn(64), Backend.of(torch.device("cpu")))
    assert isinstance(conv.algorithm, NativeConv)


def test_features_in_another_memory_order_are_convolved_alike(backend: Backend):
    conv = FrozenConv(StoredKernel(torch.randn(64, 64, 3, 3)), torch.randn(64), backend)
    x = torch.randn(1, 64, 9, 13)
    there = conv(x.contiguous(memory_format=torch.channels_last), Padding.ZERO, relu=True)
    assert torch.equal(conv(x.contiguous(), Padding.ZERO, relu=True), there)


@pytest.mark.parametrize("inputs", [3, 64])
def test_weights_in_a_table_give_the_same_bytes(inputs: int, backend: Backend):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(256, generator=generator)
    coded = StoredKernel(torch.randint(0, 256, (64, inputs, 3, 3), dtype=torch.uint8, generator=generator), table)
    x = torch.randn(1, inputs, 10, 14, generator=generator).requires_grad_()

    def run(kernel: StoredKernel) -> tuple[Tensor, Tensor]:
        y = FrozenConv(kernel, torch.zeros(64), backend)(x, Padding.REFLECT, relu=True)
        return y, torch.autograd.grad(y.sum(), x)[0]

    assert coded.dense().shape == coded.shape
    for one, other in zip(run(coded), run(StoredKernel(coded.dense())), strict=True):
        assert torch.equal(one, other)
