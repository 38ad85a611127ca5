"""The one judge of every program's pictures."""

from pathlib import Path

import torch
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.objective.targets import build_canvas, build_criterion
from torch import Tensor

from bench.runners.nst import specification
from bench.task import Task


class Judge:
    """Computes the objective of a task at full size in float32, by nst's engine."""

    def __init__(self, task: Task):
        """Take a task of any program on these pictures; what that program alone is told does not count."""
        model = Vgg19(load_weights("caffe"), "cpu")
        spec = specification(task)
        self._criterion = build_criterion(spec, model, build_canvas(spec, model.device))

    def loss(self, picture: Tensor) -> float:
        """Return the loss of what a program would hand over: pixels outside of [0, 1] cannot be stored."""
        return self.unclamped_loss(picture.clamp(0, 1))

    def unclamped_loss(self, picture: Tensor) -> float:
        """Return the loss of pixels as they are: what a program that minimises the same objective says itself."""
        return self._criterion(picture).loss

    def load(self, path: Path) -> Tensor:
        """Return a picture that a program kept."""
        picture: Tensor = torch.load(path, weights_only=True)
        return picture
