"""Objectives whose minimum is known."""

import dataclasses

import torch
from nst_service.engine.objective.evaluation import Evaluation, Objective, Values
from nst_service.engine.objective.losses import LossKind, Term
from torch import Tensor

TERM = Term(LossKind.CONTENT, "relu1_1")
SHAPE = (1, 3, 8, 8)


def towards(target: Tensor, curvature: Tensor) -> Objective:
    """Return a quadratic function with its minimum at a target."""

    def evaluate(pixels: Tensor) -> Evaluation:
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        gradient = curvature * (pixels - target)
        loss = (gradient * (pixels - target)).sum() / 2
        return Evaluation(pixels=pixels, gradient=gradient, terms=(TERM,), values=Values(loss[None]))

    return evaluate


def quadratic(pixels: Tensor) -> Evaluation:
    return towards(torch.zeros(SHAPE), torch.full(SHAPE, 2.0))(pixels)


def spoilt(value: float) -> Objective:
    """Return the same function with a loss that is not finite."""
    return lambda pixels: dataclasses.replace(quadratic(pixels), values=Values(torch.tensor([value])))
