"""The trunk of VGG-19 with frozen weights: a picture in, the activations of named layers out."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.layers import LAYERS, convs_through, opens_block, relu_of
from nst_service.engine.weights import Weights


class Vgg19:
    """The trunk on one device, in float32, with its weights in channels-last memory order."""

    def __init__(self, weights: Weights, device: torch.device | str):
        self.device = torch.device(device)
        self.weights_id = weights.id
        self.weights_sha256 = weights.sha256
        self.layers = LAYERS[: 2 * len(weights.convs)]
        """Layers that these weights reach."""
        self._convs = {
            conv: (
                kernel.to(self.device, torch.float32, memory_format=torch.channels_last),
                bias.to(self.device, torch.float32),
            )
            for conv, (kernel, bias) in weights.convs.items()
        }
        self._mean = torch.tensor(weights.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(weights.std, device=self.device).view(1, 3, 1, 1)

    def features(self, pixels: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Return the activations of a picture at the named layers; nothing beyond the last of them is computed.

        Args:
            pixels: (1, 3, H, W) float32 RGB in [0, 1]. Values outside are allowed: an optimiser passes there.
            layers: names out of `self.layers`.

        Returns:
            (1, C, h, w) float32 for each layer, in channels-last memory order. h and w are halved at every pooling and
            rounded up, so that every pixel reaches every layer.
        """
        taps: dict[str, Tensor] = {}
        x = ((pixels - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
        for conv in convs_through(layers):
            if opens_block(conv):
                # Ceil: dropping the rows and columns that fill no 2x2 window would leave the picture's edge unstyled.
                x = functional.max_pool2d(x, 2, ceil_mode=True)
            kernel, bias = self._convs[conv]
            x = functional.conv2d(x, kernel, bias, padding=1)
            if conv in layers:
                taps[conv] = x
            relu = relu_of(conv)
            # In place where nobody wants the convolution's own output: half the memory of a layer.
            x = functional.relu(x) if conv in layers else functional.relu_(x)
            if relu in layers:
                taps[relu] = x
        return taps
