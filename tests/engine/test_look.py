"""Strength and stroke size: each step of them is measurable in the result."""

import io
import itertools

import pytest
import torch
from nst_service.engine.choices import Preset
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.objective.losses import LossKind
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import TransferOptions
from nst_service.engine.pictures.colors import luminance
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from paint_style import paint
from PIL import Image
from skimage.data import chelsea
from torch import Tensor

from tests.limits import LIMITS

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)


def png(picture: Image.Image) -> bytes:
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> tuple[bytes, bytes]:
    """A photograph, and a painting that is as large as the boldest strokes need it."""
    photograph = Image.fromarray(chelsea()).resize((96, 64), Image.Resampling.LANCZOS)
    return png(photograph), png(paint(192, 144))


def spec_of(pictures: tuple[bytes, bytes], **options: float) -> TransferSpec:
    content, style = pictures
    options_ = TransferOptions.from_preset(Preset.BALANCED, image_size=96, iterations=30, **options)
    return prepare(TransferRequest(content=content, styles=(StyleInput(data=style),), options=options_), LIMITS, LAYERS)


def painted(spec: TransferSpec, model: Vgg19) -> Tensor:
    """Return the result, (1, 3, H, W)."""
    *_, last = optimize(spec, model)
    return last.result()


def luma_centroid(picture: Tensor) -> float:
    """Return the mean spatial frequency of the luma in cycles per pixel, weighted by its power."""
    luma = luminance(picture)[0, 0]
    window = torch.outer(torch.hann_window(luma.shape[0]), torch.hann_window(luma.shape[1]))
    power = torch.fft.rfft2((luma - luma.mean()) * window).abs().square()
    rows, columns = torch.fft.fftfreq(luma.shape[0]), torch.fft.rfftfreq(luma.shape[1])
    frequency = torch.hypot(rows[:, None], columns[None, :])
    return float((power * frequency).sum() / power.sum())


def test_each_step_of_the_strength_is_more_of_a_painting(pictures: tuple[bytes, bytes], model: Vgg19):
    """Each is farther from the content and nearer to the style, in the terms of one objective."""
    middle = spec_of(pictures)
    judge = build_criterion(middle, model, build_canvas(middle, model.device))
    content, style = [], []
    for strength in STEPS:
        values = judge(painted(spec_of(pictures, strength=strength), model)).term_values()
        content.append(sum(value for term, value in values.items() if term.kind is LossKind.CONTENT))
        style.append(sum(value for term, value in values.items() if term.kind is LossKind.STYLE))
    assert all(more > 1.05 * less for less, more in itertools.pairwise(content))
    # The last step has little style to gain: it gives up content.
    assert all(less < 0.99 * more for more, less in itertools.pairwise(style))


def test_each_step_of_the_stroke_size_has_bolder_strokes(pictures: tuple[bytes, bytes], model: Vgg19):
    centroids = [luma_centroid(painted(spec_of(pictures, stroke_size=size), model)) for size in STEPS]
    assert all(bolder < 0.95 * finer for finer, bolder in itertools.pairwise(centroids))
