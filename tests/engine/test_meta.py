"""Steps as a GPU takes them, on the meta device of torch.

Its tensors have a shape and a type, but no numbers: who looks at one fails, and so does who mixes it with tensors of
the CPU. What passes here needs nothing of the host between two steps, wherever it runs.
"""

from collections.abc import Callable

import pytest
import torch
from nst_service.engine.choices import Pooling, Preset, StyleStatisticKind
from nst_service.engine.network import convolution as convolution_module
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.objective import targets as targets_module
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.optim.adam import Adam
from nst_service.engine.optim.lbfgs import LBFGS
from nst_service.engine.optim.selection import select_evaluation
from nst_service.engine.options import ColorMode, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, prepare
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.limits import LIMITS

META = torch.device("meta")


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_module, "is_gpu", lambda device: device == META)
    # The one operation of ours that the meta device does not have.
    monkeypatch.setattr(torch, "cudnn_convolution_relu", _convolved_and_rectified, raising=False)


def _convolved_and_rectified(*arguments) -> Tensor:
    return functional.conv2d(*arguments).relu()


@pytest.fixture
def criterion_of(
    weights: Weights, model: Vgg19, content_png: bytes, style_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Criterion]:
    """Returns the objective of options on the meta device."""
    # Targets may be looked at while they are computed: no step waits for them.
    monkeypatch.setattr(targets_module, "digest", lambda _pixels: "")
    monkeypatch.setattr(targets_module, "match_colors", lambda pixels, _reference: pixels)

    def make(
        preset: Preset = Preset.BALANCED,
        precision: Precision = Precision.TF32,
        masks: tuple[bytes | None, ...] = (None,),
        **options,
    ) -> Criterion:
        made = TransferOptions.from_preset(preset, image_size=40, **options)
        styles = tuple(StyleInput(data=style_png, mask=mask) for mask in masks)
        spec = prepare(TransferRequest(content=content_png, styles=styles, options=made), LIMITS, LAYERS)
        network = Vgg19(weights, META, precision)
        monkeypatch.setattr(network, "activation_scales", model.activation_scales)
        return build_criterion(spec, network, build_canvas(spec, META))

    return make


@pytest.fixture
def pixels() -> Tensor:
    return torch.empty(1, 3, 31, 40, device=META)


@pytest.mark.parametrize("preset", list(Preset))
@pytest.mark.parametrize("precision", list(Precision))
def test_no_preset_needs_the_host(criterion_of: Callable[..., Criterion], pixels, preset, precision):
    check(criterion_of(preset, precision), LBFGS(pixels, learning_rate=1.0, history=3))


@pytest.mark.parametrize(
    "options",
    [
        *({"pooling": pooling} for pooling in Pooling),
        *({"color": color} for color in ColorMode),
        {"tv_weight": 1.0, "laplacian_weight": 1.0},
        {"content_weight": 0.0},
    ],
)
def test_no_option_needs_the_host(criterion_of: Callable[..., Criterion], pixels, options):
    check(criterion_of(**options), LBFGS(pixels, learning_rate=1.0, history=3))


def test_no_optimizer_needs_the_host(criterion_of: Callable[..., Criterion], pixels):
    check(criterion_of(), Adam(pixels, learning_rate=0.1))


def test_no_region_needs_the_host(criterion_of: Callable[..., Criterion], pixels, content_png, monkeypatch):
    with monkeypatch.context() as patch:
        # How large a region is is looked at with the targets.
        patch.setattr(Tensor, "item", lambda _tensor: 100.0)
        criterion = criterion_of(masks=(content_png, None))
    check(criterion, LBFGS(pixels, learning_rate=1.0, history=3))


def test_who_may_wait_says_so(criterion_of: Callable[..., Criterion]):
    assert criterion_of(style_loss=StyleStatisticKind.SLICED_WASSERSTEIN).needs_host_sync


def test_who_looks_at_a_number_here_fails(criterion_of: Callable[..., Criterion], pixels):
    optimizer = LBFGS(pixels, learning_rate=1.0, history=3)
    optimizer.step(criterion_of())
    with pytest.raises(RuntimeError, match="meta"):
        optimizer.verify()
    with pytest.raises(RuntimeError, match="meta"):
        _ = optimizer.accepted.loss


class _NothingCrosses(TorchDispatchMode):
    """Lets no operation take a tensor from one device to another, for which a GPU would wait."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        devices = {value.device for value in tree_leaves((args, kwargs, result)) if isinstance(value, Tensor)}
        assert len(devices) <= 1, f"{operation} goes from one device to another"
        return result


def check(criterion: Criterion, optimizer: LBFGS | Adam) -> None:
    """Take steps, with all that a transfer does to the best one, and look where it all is."""
    assert not criterion.needs_host_sync
    best = None
    with _NothingCrosses():
        # All slots of a history of three, and the first one again.
        for _ in range(5):
            optimizer.step(criterion)
            accepted = optimizer.accepted
            best = select_evaluation(accepted.value < best.value, accepted, best) if best else accepted
    assert {tensor.device for tensor in (*best.tensors(), *optimizer.tensors())} == {META}
    for picture in (best.pixels, best.gradient, optimizer.tensors()[0]):
        assert (picture.dtype, picture.shape) == (torch.float32, (1, 3, 31, 40))
