"""The optimisation as a generator: one optimiser step, or one part of its targets, per `next()`."""

import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.canvas import Canvas
from nst_service.engine.criterion import Criterion, Evaluation
from nst_service.engine.devices import release_memory
from nst_service.engine.objective import CriterionBuilder, build_canvas
from nst_service.engine.optimizers import LBFGS, Adam, Optimizer
from nst_service.engine.options import Init, OptimizerName, TransferOptions
from nst_service.engine.pictures import Size
from nst_service.engine.schedule import Scale, schedule
from nst_service.engine.spec import TransferSpec
from nst_service.engine.style_cache import StyleCache
from nst_service.engine.vgg import Vgg19

_NOISE_MEAN, _NOISE_DEVIATION = 0.5, 0.1
"""Of the noise that INIT_RANDOM starts from, on the 0..1 scale."""
_IMPROVEMENT_WINDOW = 10
"""Iterations over which `min_improvement` is measured."""


class Ending(StrEnum):
    """Why a transfer ended by itself."""

    ITERATIONS = "iterations"
    """All of them are done."""
    CONVERGED = "converged"
    """The loss no longer falls by `min_improvement`."""
    TIME_BUDGET = "time_budget"
    """`time_budget_seconds` is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """How far the targets of a scale are computed, which its first step needs."""

    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    scales: int
    part: int
    """Parts done, from 1."""
    parts: int
    """A picture whose features are needed has one, or as many as it has tiles."""
    part_seconds: float
    """Of the last part alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterate:
    """Where an optimisation stands after one step."""

    iteration: int
    """Steps done, from 1, over all scales."""
    total_iterations: int
    """Steps that will be done if nothing ends them early, over all scales."""
    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    scales: int
    seconds: float
    """Of work since the first step began; what others did between the steps does not count."""
    step_seconds: float
    """Of this step alone."""
    size: Size
    """Of the scale being worked on, in pixels."""
    next_seconds: float
    """Expected seconds of the next step."""
    eta_seconds: float
    """Expected seconds of work until the last iteration."""
    ending: Ending | None
    """Why this is the last one, or None where more follow."""
    evaluation: Evaluation
    """What the optimiser stands on."""
    best: Evaluation
    """The evaluation with the least loss at this scale."""
    _stage: "_Stage"
    _full: Canvas

    @property
    def is_last(self) -> bool:
        """Whether the transfer has ended."""
        return self.ending is not None

    def picture(self) -> Tensor:
        """Return the picture as it stands, (1, 3, h, w) in [0, 1], at the size of the scale."""
        return self._stage.canvas.finish(self._stage.current)

    def result(self) -> Tensor:
        """Return the best picture so far, (1, 3, H, W) in [0, 1], at full size."""
        return self._full.finish(_carried(self._stage.chosen, self._stage.canvas, self._full))


Transfer = Generator[Preparing | Iterate, None, None]
"""What `transfer` returns."""


def transfer(spec: TransferSpec, model: Vgg19, tile: int | None = None, styles: StyleCache | None = None) -> Transfer:
    """Stylise: yield after every optimiser step, until one ends the transfer or the generator is closed.

    Before the first step of a scale it yields after each part of the targets, too: those of a large picture take
    minutes. Nothing runs between two calls of `next()`, so that is where to look at a picture, to save a state, or to
    stop.

    Args:
        spec: what to do.
        model: the network.
        tile: edge of a tile in pixels, or None to take pictures as a whole.
        styles: statistics of styles that are known already, and where those that are computed shall be kept. The
            result is the same without.

    Raises:
        NonFiniteLossError: the loss is infinite or undefined and no recovery helped.
    """
    yield from _Transfer(spec, model, tile, styles).run()


def optimize(
    spec: TransferSpec, model: Vgg19, tile: int | None = None, styles: StyleCache | None = None
) -> Iterator[Iterate]:
    """Yield what `transfer` yields after the steps of the optimiser."""
    for step in transfer(spec, model, tile, styles):
        if isinstance(step, Iterate):
            yield step


class _Stopwatch:
    """Counts seconds of work."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._resumed = time.perf_counter()

    def pause(self) -> float:
        """Stop counting and return the seconds until now."""
        self._seconds += time.perf_counter() - self._resumed
        return self._seconds

    def resume(self) -> None:
        """Go on counting."""
        self._resumed = time.perf_counter()


class _Stage:
    """One scale of a transfer."""

    def __init__(self, canvas: Canvas, criterion: Criterion, optimizer: Optimizer, options: TransferOptions):
        self.canvas = canvas
        self.optimizer = optimizer
        self.evaluation: Evaluation
        self.best: Evaluation
        self._criterion = criterion
        self._options = options
        self._average: Tensor | None = None
        self._losses: deque[float] = deque(maxlen=_IMPROVEMENT_WINDOW + 1)

    def step(self) -> None:
        """Take a step of the optimiser."""
        evaluation = self.optimizer.step(self._criterion)
        if not self._losses or evaluation.loss < self.best.loss:
            self.best = evaluation
        self.evaluation = evaluation
        self._losses.append(self.best.loss)
        if self._options.averaging:
            # The first iterate begins the average, so that nothing pulls it towards black.
            earlier = evaluation.pixels if self._average is None else self._average
            self._average = torch.lerp(evaluation.pixels, earlier, self._options.averaging)

    @property
    def is_flat(self) -> bool:
        """Whether the last iterations improved the loss by less than `min_improvement`."""
        if len(self._losses) <= _IMPROVEMENT_WINDOW:
            return False
        return self._losses[0] - self._losses[-1] < self._options.min_improvement * self._losses[0]

    @property
    def current(self) -> Tensor:
        """The pixels to look at: the average of the iterates, or where the optimiser stands."""
        return self.evaluation.pixels if self._average is None else self._average

    @property
    def chosen(self) -> Tensor:
        """The pixels to keep: the average of the iterates, or the best of them."""
        return self.best.pixels if self._average is None else self._average


class _Transfer:
    """One run of `transfer`."""

    def __init__(self, spec: TransferSpec, model: Vgg19, tile: int | None, styles: StyleCache | None):
        self._spec = spec
        self._options = spec.options
        self._model = model
        self._tile = tile
        self._styles = styles
        self._full = build_canvas(spec, model.device)
        self._scales = schedule(spec.content.size, spec.options.scale_iterations)
        self._total_work = sum(scale.work for scale in self._scales)

    def run(self) -> Transfer:
        stage: _Stage | None = None
        iteration = 0
        total_iterations = sum(scale.iterations for scale in self._scales)
        watch = _Stopwatch()
        for number, scale in enumerate(self._scales, 1):
            builder = self._prepare(scale, stage)
            for preparing in self._extract(builder, number):
                watch.pause()
                yield preparing
                watch.resume()
            stage = self._open(builder, stage)
            if number == 1:
                # The time begins with the first step.
                watch = _Stopwatch()
            work_until = sum(each.work for each in self._scales[:number])
            # A scale that ended early leaves its time to the next.
            work = work_until - scale.work
            allowed = self._options.time_budget_seconds * work_until / self._total_work or math.inf
            for left in reversed(range(scale.iterations)):
                step_started = time.perf_counter()
                stage.step()
                step_seconds = time.perf_counter() - step_started
                iteration += 1
                work += scale.step_work
                elapsed = watch.pause()
                pace = elapsed / work
                next_seconds = pace * scale.step_work
                ending = _ending(left, stage.is_flat, elapsed + next_seconds > allowed)
                yield Iterate(
                    iteration=iteration,
                    total_iterations=total_iterations,
                    scale=number,
                    scales=len(self._scales),
                    size=scale.size,
                    seconds=elapsed,
                    step_seconds=step_seconds,
                    next_seconds=next_seconds,
                    eta_seconds=self._eta(elapsed, pace * (self._total_work - work)),
                    ending=ending if scale.is_last else None,
                    evaluation=stage.evaluation,
                    best=stage.best,
                    _stage=stage,
                    _full=self._full,
                )
                watch.resume()
                if ending:
                    break

    def _prepare(self, scale: Scale, coarser: _Stage | None) -> CriterionBuilder:
        if coarser is not None:
            # What it has used fits nothing of this scale.
            release_memory(self._model.device)
        spec = self._spec.at(scale.size)
        canvas = self._full if scale.is_last else build_canvas(spec, self._model.device)
        return CriterionBuilder(spec, self._model, canvas, self._tile, self._styles)

    def _extract(self, builder: CriterionBuilder, number: int) -> Iterator[Preparing]:
        started = time.perf_counter()
        for part in builder.extract():
            yield Preparing(
                scale=number,
                scales=len(self._scales),
                part=part,
                parts=builder.parts,
                part_seconds=time.perf_counter() - started,
            )
            started = time.perf_counter()

    def _open(self, builder: CriterionBuilder, coarser: _Stage | None) -> _Stage:
        spec, canvas = builder.spec, builder.canvas
        if coarser is None:
            optimizer = _optimizer(self._options, _initial_pixels(spec).to(self._model.device))
        else:
            optimizer = coarser.optimizer.moved(_carried(coarser.chosen, coarser.canvas, canvas))
        return _Stage(canvas, builder.build(), optimizer, self._options)

    def _eta(self, elapsed: float, seconds: float) -> float:
        budget = self._options.time_budget_seconds
        return min(seconds, max(0.0, budget - elapsed)) if budget else seconds


def _ending(left: int, is_flat: bool, is_spent: bool) -> Ending | None:
    """Return why a scale ends with so many of its iterations left, or None."""
    if left == 0:
        return Ending.ITERATIONS
    if is_spent:
        return Ending.TIME_BUDGET
    return Ending.CONVERGED if is_flat else None


def _carried(pixels: Tensor, source: Canvas, target: Canvas) -> Tensor:
    """Return pixels of one scale at another: the change of the content is enlarged, and the content stays sharp."""
    if source is target:
        return pixels
    change = functional.interpolate(
        pixels - source.content, target.content.shape[-2:], mode="bicubic", align_corners=False
    )
    return (target.content + change).clamp_(0, 1)


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
            return spec.styles[0].picture.resized(spec.content.size).to_tensor()
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
