"""The trunk of VGG-19 with frozen weights: a picture in, the activations of named layers out."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.convolution import FrozenConv, Padding
from nst_service.engine.layers import LAYERS, conv_of, convs_through, pooled_convs, relu_of
from nst_service.engine.pooling import Pooling, pool
from nst_service.engine.precision import Precision
from nst_service.engine.weights import Weights

_CALIBRATION_EDGE = 256
_SMALLEST_MEAN = 1e-6


class Variant(NamedTuple):
    """How the frozen weights are applied."""

    pooling: Pooling = Pooling.MAX
    padding: Padding = Padding.ZERO


REFERENCE_VARIANT = Variant()
"""The network as it was trained."""


class Vgg19:
    """The trunk on one device, with its weights in channels-last memory order."""

    def __init__(self, weights: Weights, device: torch.device | str, precision: Precision = Precision.FLOAT32):
        self.device = torch.device(device)
        self.weights_id = weights.id
        self.weights_sha256 = weights.sha256
        self.layers = LAYERS[: 2 * len(weights.convs)]
        """Layers that these weights reach."""
        self._convs = {
            conv: FrozenConv(kernel.to(self.device, torch.float32), bias.to(self.device, torch.float32), precision)
            for conv, (kernel, bias) in weights.convs.items()
        }
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
        return dict(self.walk(pixels, layers, variant))

    def walk(
        self, pixels: Tensor, layers: Collection[str], variant: Variant = REFERENCE_VARIANT
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield what `features` returns layer by layer, from the picture upwards, while the rest is still to come."""
        x = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        convs = convs_through(layers)
        pooled = pooled_convs(convs)
        for conv in convs:
            relu = relu_of(conv)
            if conv in pooled and conv not in layers and relu not in layers:
                x = self._convs[conv].pooled(x, variant.padding, variant.pooling)
                continue
            # Rectified at once where nobody wants the convolution's own output: half the memory of a layer.
            x = self._convs[conv](x, variant.padding, relu=conv not in layers)
            if conv in layers:
                yield conv, x
                x = functional.relu(x)
            if relu in layers:
                yield relu, x
            if conv in pooled:
                x = pool(x, variant.pooling)

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
