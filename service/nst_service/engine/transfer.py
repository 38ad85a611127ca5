"""The optimisation as a generator: one optimiser step per `next()`."""

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_service.engine.criterion import (
    ContentLoss,
    Criterion,
    Evaluation,
    Loss,
    StyleLoss,
    TotalVariationLoss,
    gram_matrix,
)
from nst_service.engine.optimizers import LBFGS, Adam, Optimizer
from nst_service.engine.options import Init, OptimizerName, TransferOptions
from nst_service.engine.spec import TransferSpec
from nst_service.engine.vgg import Vgg19

_NOISE_MEAN, _NOISE_DEVIATION = 0.5, 0.1
"""Of the noise that INIT_RANDOM starts from, on the 0..1 scale."""


@dataclass(frozen=True, slots=True)
class Iterate:
    """Where an optimisation stands after one step."""

    iteration: int
    """Steps done, from 1."""
    total_iterations: int
    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    scales: int
    seconds: float
    """Since the first step began."""
    step_seconds: float
    """Of this step alone; what was done between the steps does not count."""
    evaluation: Evaluation
    """What the optimiser stands on."""
    best: Evaluation
    """The evaluation with the least loss so far."""

    @property
    def is_last(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration == self.total_iterations

    @property
    def mean_seconds(self) -> float:
        """Seconds from step to step, averaged over those done."""
        return self.seconds / self.iteration

    @property
    def eta_seconds(self) -> float:
        """Expected seconds until the last iteration."""
        return self.mean_seconds * (self.total_iterations - self.iteration)


def transfer(spec: TransferSpec, model: Vgg19) -> Generator[Iterate, None, None]:
    """Stylise: yield after every optimiser step, until the iterations are done or the generator is closed.

    The first `next()` also computes the targets. Nothing runs between two calls of `next()`, so that is where to look
    at a picture, to save a state, or to stop.

    Raises:
        NonFiniteLossError: the loss is infinite or undefined and no recovery helped.
    """
    criterion = build_criterion(spec, model)
    optimizer = _optimizer(spec.options, _initial_pixels(spec).to(model.device))
    best: Evaluation | None = None
    started = time.perf_counter()
    for iteration in range(1, spec.options.iterations + 1):
        step_started = time.perf_counter()
        evaluation = optimizer.step(criterion)
        now = time.perf_counter()
        if best is None or evaluation.loss < best.loss:
            best = evaluation
        yield Iterate(
            iteration=iteration,
            total_iterations=spec.options.iterations,
            scale=1,
            scales=1,
            seconds=now - started,
            step_seconds=now - step_started,
            evaluation=evaluation,
            best=best,
        )


def build_criterion(spec: TransferSpec, model: Vgg19) -> Criterion:
    """Compute the targets of a specification and compose its losses; terms of weight zero are left out."""
    content_layers = spec.options.active_content_layers
    style_layers = spec.options.active_style_layers
    losses: list[Loss] = []
    with torch.no_grad():
        if content_layers:
            features = model.features(spec.content.to_tensor().to(model.device), content_layers)
            losses += [ContentLoss(layer, weight, features[layer]) for layer, weight in content_layers.items()]
        if style_layers:
            grams = _blended_grams(spec, model)
            losses += [StyleLoss(layer, weight, grams[layer]) for layer, weight in style_layers.items()]
    if spec.options.tv_weight > 0:
        losses.append(TotalVariationLoss(spec.options.tv_weight))
    return Criterion(model, losses)


def _blended_grams(spec: TransferSpec, model: Vgg19) -> dict[str, Tensor]:
    """Return the weighted mean of the styles' Gram matrices at each style layer."""
    layers = spec.options.active_style_layers
    blended: dict[str, Tensor] = {}
    for picture, share in spec.styles:
        features = model.features(picture.to_tensor().to(model.device), layers)
        for layer in layers:
            gram = share * gram_matrix(features[layer])
            blended[layer] = blended[layer] + gram if layer in blended else gram
    return blended


def _initial_pixels(spec: TransferSpec) -> Tensor:
    """Return where the optimisation starts, (1, 3, H, W) in [0, 1], the same on every device."""
    match spec.options.init:
        case Init.CONTENT:
            return spec.content.to_tensor()
        case Init.RANDOM:
            noise = torch.Generator().manual_seed(spec.options.seed)
            shape = (1, 3, spec.content.height, spec.content.width)
            return torch.empty(shape).normal_(_NOISE_MEAN, _NOISE_DEVIATION, generator=noise).clamp_(0, 1)
        case Init.STYLE:
            return spec.styles[0][0].resized(spec.content.size).to_tensor()
        case Init.PICTURE:
            assert spec.init_picture is not None
            return spec.init_picture.to_tensor()


def _optimizer(options: TransferOptions, pixels: Tensor) -> Optimizer:
    learning_rate = options.learning_rate
    assert learning_rate is not None
    match options.optimizer:
        case OptimizerName.LBFGS:
            return LBFGS(pixels, learning_rate=learning_rate, history=options.lbfgs_history)
        case OptimizerName.ADAM:
            return Adam(pixels, learning_rate=learning_rate)
