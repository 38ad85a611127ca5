"""The loop that tutorials teach: VGG-19 as `nn.Sequential`, losses from hooks, `torch.optim.LBFGS`, channels last.

Prints a line after every evaluation, so that whoever runs it can take the time.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional

from bench.pictures import load_tensor

_STYLE_LAYERS = (1, 6, 11, 20, 29)
_CONTENT_LAYER = 22
_WIDTHS = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content")
    parser.add_argument("style")
    parser.add_argument("weights", help=".pth with torchvision's key names, trained on BGR in 0..255")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    args = parser.parse_args()
    network = build(args.weights)
    content, style = load_tensor(args.content, args.size), load_tensor(args.style, args.size)
    optimize(network, content, style, args.iterations)


def build(weights: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _WIDTHS:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    network = nn.Sequential(*layers)
    state = torch.load(weights, weights_only=True)
    state["features.0.weight"] = state["features.0.weight"].flip(1)  # It reads BGR.
    network.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, strict=False)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def caffe_input(pixels: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    return (255 * pixels - mean).contiguous(memory_format=torch.channels_last)


def gram(features: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = features.shape
    flat = features.reshape(batch * channels, height * width)
    return flat @ flat.T / features.numel()


def optimize(network: nn.Sequential, content: torch.Tensor, style: torch.Tensor, iterations: int) -> None:
    taps: dict[int, torch.Tensor] = {}
    for index in (*_STYLE_LAYERS, _CONTENT_LAYER):
        network[index].register_forward_hook(lambda _m, _i, output, index=index: taps.update({index: output}))
    with torch.no_grad():
        network(caffe_input(content))
        content_target = taps[_CONTENT_LAYER]
        network(caffe_input(style))
        style_targets = {index: gram(taps[index]) for index in _STYLE_LAYERS}
    pixels = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels], max_iter=iterations, tolerance_grad=-1, tolerance_change=-1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        network(caffe_input(pixels))
        loss = 5 * functional.mse_loss(taps[_CONTENT_LAYER], content_target)
        for index, target in style_targets.items():
            loss = loss + 100 * functional.mse_loss(gram(taps[index]), target)
        variation = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum()
        variation = variation + (pixels[..., 1:] - pixels[..., :-1]).abs().sum()
        loss = loss + 1e-3 * 255 * variation
        loss.backward()
        assert pixels.grad is not None
        pixels.grad = pixels.grad.contiguous()
        print("evaluation", flush=True)
        return loss

    optimizer.step(closure)


if __name__ == "__main__":
    main()
