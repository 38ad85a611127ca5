"""Runs the loop of tutorials: VGG-19 as `nn.Sequential`, losses from hooks, `torch.optim.LBFGS`, channels last.

Its pixels are the input of the network, in 0..255. With pixels in 0..1 and losses of this size, the first steps of
`torch.optim.LBFGS` leave the range of pictures, and it does not recover.
"""

import torch
from torch import nn
from torch.nn import functional

from bench.pixels import caffe_input, from_caffe_rgb, load_picture
from bench.recorder import Recorder, observe
from bench.task import Task

_STYLE_LAYERS = (1, 6, 11, 20, 29)
_CONTENT_LAYER = 22
_POOL = 0
_WIDTHS = (64, 64, _POOL, 128, 128, _POOL, 256, 256, 256, 256, _POOL, 512, 512, 512, 512, _POOL, 512)


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    observe(recorder, from_caffe_rgb)
    optimize(build(task.weights), task)
    recorder.finish()


def build(weights: str) -> nn.Sequential:
    """Return the network up to relu5_1, with the weights of a file and in channels_last memory order."""
    layers: list[nn.Module] = []
    channels = 3
    for width in _WIDTHS:
        if width == _POOL:
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    network = nn.Sequential(*layers)
    state = torch.load(weights, weights_only=True)
    network.load_state_dict({key.removeprefix("features."): value for key, value in state.items()}, strict=False)
    return network.requires_grad_(False).to(memory_format=torch.channels_last)


def gram(features: torch.Tensor) -> torch.Tensor:
    """Return the Gram matrix (C, C) of features (1, C, H, W), divided by C H W."""
    batch, channels, height, width = features.shape
    flat = features.reshape(batch * channels, height * width)
    return flat @ flat.T / features.numel()


def optimize(network: nn.Sequential, task: Task, device: torch.device | str = "cpu") -> None:
    """Run all evaluations of a task."""
    taps: dict[int, torch.Tensor] = {}
    for index in (*_STYLE_LAYERS, _CONTENT_LAYER):
        network[index].register_forward_hook(lambda _m, _i, output, index=index: taps.update({index: output}))
    content, style = (caffe_input(load_picture(path)).to(device) for path in (task.content, task.style))
    with torch.no_grad():
        network(_channels_last(content))
        content_target = taps[_CONTENT_LAYER]
        network(_channels_last(style))
        style_targets = {index: gram(taps[index]) for index in _STYLE_LAYERS}
    pixels = content.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([pixels], max_iter=task.evaluations, tolerance_grad=-1, tolerance_change=-1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        network(_channels_last(pixels))
        loss = task.content_weight * functional.mse_loss(taps[_CONTENT_LAYER], content_target)
        for index, target in style_targets.items():
            loss = loss + task.style_weight * functional.mse_loss(gram(taps[index]), target)
        if task.tv_weight:
            variation = (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum()
            variation = variation + (pixels[..., 1:] - pixels[..., :-1]).abs().sum()
            loss = loss + task.tv_weight * variation
        loss.backward()
        assert pixels.grad is not None
        pixels.grad = pixels.grad.contiguous()
        return loss

    optimizer.step(closure)


def _channels_last(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
