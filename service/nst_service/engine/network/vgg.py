"""The trunk of VGG-19 with frozen weights: a picture in, the activations of named layers out."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import Padding, Pooling
from nst_service.engine.network.bands import convolve_in_bands, look_in_bands
from nst_service.engine.network.convolution import FrozenConv
from nst_service.engine.network.layers import (
    LAYERS,
    WHOLE,
    Window,
    conv_of,
    convs_through,
    opening_pair,
    pooled_convs,
    relu_of,
)
from nst_service.engine.network.pooling import pool
from nst_service.engine.network.precision import Precision
from nst_service.engine.network.weights import Weights

_CALIBRATION_EDGE = 256
_SMALLEST_MEAN = 1e-6


class Variant(NamedTuple):
    """How the frozen weights are applied."""

    pooling: Pooling = Pooling.MAX
    padding: Padding = Padding.ZERO


REFERENCE_VARIANT = Variant()
"""The network as it was trained."""


Look = Callable[[str, Tensor, Window], Sequence[Tensor]]
"""Takes the name of a layer and its features (1, C, h, w) in a window; returns what is wanted of them."""


class Vgg19:
    """The trunk on one device, with its weights in channels-last memory order."""

    def __init__(self, weights: Weights, device: torch.device | str, precision: Precision = Precision.FLOAT32):
        self.device = torch.device(device)
        self.weights_id = weights.id
        self.weights_sha256 = weights.sha256
        self.layers = LAYERS[: 2 * len(weights.convs)]
        """Layers that these weights reach."""
        self._weights = dict(weights.convs)
        """Of the convolutions that nobody asked for yet: deep ones are large and seldom used."""
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

        gathered = self._gather(pixels, layers, itself, variant, in_parts=False)
        return {layer: features for layer, ((features,),) in gathered.items()}

    def gather(
        self, pixels: Tensor, layers: Collection[str], look: Look, variant: Variant = REFERENCE_VARIANT
    ) -> dict[str, list[Sequence[Tensor]]]:
        """Look at the features of layers part by part; those that are the largest are never in memory as a whole.

        Args:
            pixels: as of `features`.
            layers: names out of `self.layers`.
            look: called for every part as soon as it is there. The way back takes what came last first, and would
                otherwise hold the gradients by the features of all layers before it begins with the deepest. It may be
                called again on the way back.
            variant: as of `features`.

        Returns:
            What it returned, by layer, part by part from top to bottom.
        """
        return self._gather(pixels, layers, look, variant, in_parts=True)

    def _gather(
        self, pixels: Tensor, layers: Collection[str], look: Look, variant: Variant, *, in_parts: bool
    ) -> dict[str, list[Sequence[Tensor]]]:
        x = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        gathered: dict[str, list[Sequence[Tensor]]] = {layer: [] for layer in layers}
        convs = convs_through(layers)
        pooled = pooled_convs(convs)

        def seen(layer: str) -> Tensor:
            if not in_parts:
                gathered[layer] = [look(layer, x, WHOLE)]
                return x
            passed, gathered[layer] = look_in_bands(x, functools.partial(look, layer))
            return passed

        if in_parts and (opening := opening_pair(layers)):
            first, second = map(self._conv, opening)
            if pair := first.before(second, variant.padding, variant.pooling):
                between = relu_of(opening[0])
                seen_between = functools.partial(look, between) if between in layers else None
                x, parts = convolve_in_bands(x, pair, seen_between)
                gathered |= {between: parts} if between in layers else {}
                convs = convs[2:]
        for name in convs:
            conv, relu = self._conv(name), relu_of(name)
            if name in pooled and name not in layers and relu not in layers:
                x = conv.pooled(x, variant.padding, variant.pooling)
                continue
            # Rectified at once where nobody wants the convolution's own output: half the memory of a layer.
            x = conv(x, variant.padding, relu=name not in layers)
            if name in layers:
                x = functional.relu(seen(name))
            if relu in layers:
                x = seen(relu)
            if name in pooled:
                x = pool(x, variant.pooling)
        return gathered

    def _conv(self, name: str) -> FrozenConv:
        if name not in self._convs:
            kernel, bias = self._weights[name]
            # Memory may run out here: until then, they stay.
            self._convs[name] = FrozenConv(kernel, bias.to(self.device), self._precision)
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
