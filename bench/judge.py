"""One judge for the pictures of all programs."""

from pathlib import Path

import torch
from nst_service.config import ServerConfig
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.runtime import load_models
from torch import Tensor

from bench.runners.nst import specification
from bench.task import Task


class Judge:
    """Computes the objective of a task at full size in float32, by nst's engine."""

    def __init__(self, task: Task):
        """Build the objective of a task. The options of its program do not matter."""
        (model,) = load_models(ServerConfig(device="cpu"))
        spec = specification(task)
        self._criterion = build_criterion(spec, model, build_canvas(spec, model.device))

    def loss(self, picture: Tensor) -> float:
        """Return the loss of a picture (1, 3, H, W), clamped to [0, 1] as a program would store it."""
        return self.unclamped_loss(picture.clamp(0, 1))

    def unclamped_loss(self, picture: Tensor) -> float:
        """Return the loss of a picture (1, 3, H, W) as it is, for comparison with the loss that a program reports."""
        return self._criterion(picture).loss

    def load(self, path: Path) -> Tensor:
        """Return a picture (1, 3, H, W) that a program has kept."""
        picture: Tensor = torch.load(path, weights_only=True)
        return picture
