"""Runs stylemod 0.9.1 by its function `style_transfer` with its VGG-19 and Adam.

It has no total variation. Its L-BFGS cannot be used: it never resets the gradient, which therefore is the sum of all
gradients so far, and one step of `style_transfer` runs as many iterations as there are steps.
"""

from typing import Any

import torch
import torchvision
from stylemod import style_transfer
from stylemod.models.vgg19 import VGG19

from bench.pixels import CAFFE_MEAN, from_caffe_rgb, load_picture
from bench.recorder import Recorder, observe
from bench.task import STYLE_CHANNELS, Task

_LEARNING_RATE = 5.0
"""Step size of Adam for pixels in 0..255: 0.02 on the 0..1 scale. The default of 0.003 is for pixels of about unit
variance, and hardly changes the picture within some hundred iterations."""


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    model = _observed(task, recorder)
    observe(recorder, from_caffe_rgb, last_loss=lambda: model.last_loss)
    style_transfer(
        load_picture(task.content),
        load_picture(task.style),
        model=model,
        steps=task.evaluations,
        optimizer_type="adam",
        _print=False,
    )
    recorder.finish()


def _observed(task: Task, recorder: Recorder) -> Any:
    class Observed(VGG19):  # type: ignore[misc]
        """The model of stylemod, which starts the clock at an evaluation, because Adam has no closure."""

        last_loss: Any = None

        def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            recorder.begin()
            loss: torch.Tensor = super().forward(*args, **kwargs)
            self.last_loss = loss
            return loss

    height, width = load_picture(task.content).shape[-2:]
    return Observed(
        model_fn=_network,
        weights=task.weights,
        content_layer="22",
        # Its Gram matrices are not divided by anything: the style must be as large as the content.
        style_weights={
            layer: (channels * (height >> block) * (width >> block)) ** -2
            for block, (layer, channels) in enumerate(zip(("1", "6", "11", "20", "29"), STYLE_CHANNELS, strict=True))
        },
        content_weight=task.content_weight,
        style_weight=task.style_weight,
        learning_rate=_LEARNING_RATE,
        normalization=(tuple(mean / 255 for mean in CAFFE_MEAN), (1 / 255,) * 3),
        eval_mode=True,
    )


def _network(weights: str) -> torch.nn.Module:
    network: torch.nn.Module = torchvision.models.vgg19(weights=None, init_weights=False)
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    return network


if __name__ == "__main__":
    main()
