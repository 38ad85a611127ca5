"""The trunk of VGG-19 with frozen weights: a picture in, the activations of named layers out."""

import functools
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.arena import channels_last
from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.backend import Backend
from nst_service.engine.network.bands import BandVisitor, convolve_in_bands, visit_in_bands, visit_whole
from nst_service.engine.network.convolution import FrozenConv
from nst_service.engine.network.layers import LAYERS, Window, conv_of, relu_of
from nst_service.engine.network.plan import REFERENCE_VARIANT, PairStep, Step, Variant, plan, plan_in_bands
from nst_service.engine.network.pooling import pool
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.weights import Weights

_CALIBRATION_EDGE = 256
"""Pixels: the edge of the picture on which mean activations are measured."""
_SMALLEST_MEAN = 1e-6
"""The least mean activation of a layer, since activations are divided by it."""

FeatureVisitor = Callable[[str, Tensor, Window], Sequence[Tensor]]
"""Takes the name of a layer and its features (1, C, h, w) in a window; returns the tensors that are wanted of them."""

Visits = dict[str, list[Sequence[Tensor]]]
"""The tensors that a visitor returned, by layer, part by part from top to bottom."""


class Vgg19:
    """The trunk on one device, with its weights in channels-last memory order."""

    def __init__(self, weights: Weights, device: torch.device | str, precision: Precision = Precision.FLOAT32):
        self.device = torch.device(device)
        self.backend = Backend.of(self.device)
        """The implementation of the convolutions."""
        self.weights_id = weights.id
        self.weights_sha256 = weights.sha256
        self.layers = LAYERS[: 2 * len(weights.convs)]
        """Layers that these weights reach."""
        self._weights = dict(weights.convs)
        """Weights of the convolutions that nobody asked for yet: deep ones are large and seldom used."""
        self._convs: dict[str, FrozenConv] = {}
        self._precision = precision
        self._mean = torch.tensor(weights.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(weights.std, device=self.device).view(1, 3, 1, 1)
        self._scales: dict[Pooling, dict[str, float]] = {}

    def features(
        self, pixels: Tensor, layers: Collection[str], variant: Variant = REFERENCE_VARIANT
    ) -> dict[str, Tensor]:
        """Return the activations of a picture at the named layers; nothing beyond the last of them is computed.

        Args:
            pixels: (1, 3, H, W) float32 RGB in [0, 1]. Values outside are allowed: an optimiser passes there.
            layers: names out of `self.layers`.
            variant: how the weights are applied.

        Returns:
            (1, C, h, w) float32 for each layer, or bfloat16 with that precision, in channels-last memory order. h and
            w are halved at every pooling and rounded up, so that every pixel reaches every layer.
        """

        def itself(_layer: str, features: Tensor, _window: Window) -> list[Tensor]:
            return [features]

        steps = plan(layers, variant, self.backend)
        visits = self._execute(steps, pixels, variant.padding, itself, visit_whole)
        return {layer: visits[layer][0][0] for layer in layers}

    def visit_features(
        self, pixels: Tensor, layers: Collection[str], visit: FeatureVisitor, variant: Variant = REFERENCE_VARIANT
    ) -> Visits:
        """Visit the features of layers part by part; those that are the largest are never in memory as a whole.

        Args:
            pixels: (1, 3, H, W), as `features` takes them.
            layers: names out of `self.layers`.
            visit: called for every part as soon as it is computed. The backward pass begins with what came last: it
                would otherwise hold the gradients with respect to the features of all layers before it begins with
                the deepest one. `visit` may be called again in the backward pass.
            variant: how the weights are applied.

        Returns:
            What `visit` returned, by layer, part by part from top to bottom.
        """
        steps = plan_in_bands(layers, variant, self.backend)
        visits = self._execute(steps, pixels, variant.padding, visit, visit_in_bands)
        return {layer: visits[layer] for layer in layers}

    def _execute(
        self,
        steps: Sequence[Step],
        pixels: Tensor,
        padding: Padding,
        visit: FeatureVisitor,
        visit_layer: Callable[[Tensor, BandVisitor], tuple[Tensor, list[Sequence[Tensor]]]],
    ) -> Visits:
        """Execute the steps of a plan; `visit_layer` shows a layer to the visitor as a whole or in bands."""
        x = channels_last((pixels - self._mean) / self._std)
        visits: Visits = {}

        # Nothing but `x` holds features, so that those of a step are freed before the next step is done.
        def tap(layer: str) -> Tensor:
            passed, visits[layer] = visit_layer(x, functools.partial(visit, layer))
            return passed

        for step in steps:
            if isinstance(step, PairStep):
                pair = self._conv(step.first.conv).before(self._conv(step.second.conv), padding, step.epilogue)
                between = functools.partial(visit, step.tap) if step.tap else None
                x, parts = convolve_in_bands(x, pair, between)
                visits |= {step.tap: parts} if step.tap else {}
                continue
            conv = self._conv(step.conv)
            if step.epilogue is not None:
                x = conv.fused(x, padding, step.epilogue)
                continue
            # Rectified at once where nobody wants the convolution's own output: half the memory of a layer.
            x = conv(x, padding, relu=step.conv not in step.taps)
            if step.conv in step.taps:
                x = functional.relu(tap(step.conv))
            if (relu := relu_of(step.conv)) in step.taps:
                x = tap(relu)
            if step.pooling is not None:
                x = pool(x, step.pooling, self.backend)
        return visits

    def _conv(self, name: str) -> FrozenConv:
        if name not in self._convs:
            kernel, bias = self._weights[name]
            # Memory may run out here: until then, they stay.
            self._convs[name] = FrozenConv(kernel, bias.to(self.device), self.backend, self._precision)
            del self._weights[name]
        return self._convs[name]

    def activation_scales(self, layers: Collection[str], pooling: Pooling) -> dict[str, float]:
        """Return the mean activations of layers on a picture with the spectrum of natural ones.

        A layer that is divided by its scale has a mean activation of one, whatever the scale of its weights: a network
        of convolutions and ReLUs computes the same up to a factor when a layer is multiplied by a positive number.
        Gatys, Ecker & Bethge (2015, "Texture synthesis", section 2) rescale the weights themselves to that end. The
        scale of a convolution is that of its ReLU.
        """
        known = self._scales.setdefault(pooling, {})
        relus = {layer: relu_of(conv_of(layer)) for layer in layers}
        if missing := set(relus.values()) - known.keys():
            noise = _natural_noise(_CALIBRATION_EDGE).to(self.device)
            with torch.no_grad():
                features = self.features(noise, missing, Variant(pooling))
            known |= {
                relu: max(activations.float().mean().item(), _SMALLEST_MEAN) for relu, activations in features.items()
            }
        return {layer: known[relu] for layer, relu in relus.items()}


def _natural_noise(edge: int) -> Tensor:
    """Return noise (1, 3, edge, edge) in [0, 1] with the 1/f spectrum of natural pictures, always the same."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft2(torch.randn(4, edge, edge, generator=generator))
    rows, columns = torch.fft.fftfreq(edge)[:, None], torch.fft.rfftfreq(edge)[None]
    frequency = (rows.square() + columns.square()).sqrt().clamp(min=1 / edge)
    noise = torch.fft.irfft2(spectrum / frequency, s=(edge, edge))
    noise = noise / noise.std(dim=(1, 2), keepdim=True)
    # Colours vary less than brightness.
    picture: Tensor = (0.45 + 0.24 * noise[:1] + 0.08 * noise[1:])[None].clamp(0, 1)
    return picture
