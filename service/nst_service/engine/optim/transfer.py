"""The optimisation as a generator: one optimiser step, or one part of its targets, per `next()`."""

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional

from nst_service.engine.choices import Init, OptimizerKind
from nst_service.engine.devices import release_memory
from nst_service.engine.errors import SnapshotError
from nst_service.engine.network.precision import is_gpu
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.criterion import Criterion, Evaluation
from nst_service.engine.objective.style_cache import StyleCache
from nst_service.engine.objective.targets import CriterionBuilder, build_canvas
from nst_service.engine.optim.cuda_graph import RecordedStep
from nst_service.engine.optim.optimizers import (
    LBFGS,
    Adam,
    AdamState,
    LBFGSState,
    Optimizer,
    OptimizerState,
    either,
    kept,
    kept_tensor,
)
from nst_service.engine.optim.resized_start import ResizedStart
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.options import TransferOptions
from nst_service.engine.scales import Scale, schedule
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferSpec

_NOISE_MEAN, _NOISE_DEVIATION = 0.5, 0.1
"""Of the noise that INIT_RANDOM starts from, on the 0..1 scale."""
_IMPROVEMENT_WINDOW = 10
"""Iterations over which `min_improvement` is measured."""
_TURN_SECONDS = 0.05
"""Of steps that a GPU takes before the host looks at any of them."""
_STEPS_BEFORE_RECORDING = 2
"""The first one of an optimiser is not like the others, and the second one has all kernels loaded."""


class TerminationReason(StrEnum):
    """Why a transfer ended by itself."""

    ITERATIONS = "iterations"
    """All of them are done."""
    CONVERGED = "converged"
    """The loss no longer falls by `min_improvement`."""
    TIME_BUDGET = "time_budget"
    """`time_budget_seconds` is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetProgress:
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
    """Steps done, from 1, over all scales. A CPU takes one per turn, a GPU several."""
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
    """Expected seconds of the next turn."""
    eta_seconds: float
    """Expected seconds of work until the last iteration."""
    termination: TerminationReason | None
    """Why this is the last one, or None where more follow."""
    evaluation: Evaluation
    """What the optimiser stands on."""
    best: Evaluation
    """The evaluation with the least loss at this scale."""
    _excess_seconds: float
    _stage: "_Stage"
    _full: Canvas

    @property
    def is_last(self) -> bool:
        """Whether the transfer has ended."""
        return self.termination is not None

    def picture(self) -> Tensor:
        """Return the picture as it stands, (1, 3, h, w) in [0, 1], at the size of the scale."""
        return self._stage.canvas.finish(self._stage.current)

    def result(self) -> Tensor:
        """Return the best picture so far, (1, 3, H, W) in [0, 1], at full size."""
        return self._full.finish(_carried(self._stage.chosen, self._stage.canvas, self._full))

    def snapshot(self, *, history: bool = True) -> Snapshot:
        """Return what `transfer` needs to go on after this step.

        As all that this class returns, it is of the last step: ask before the next.

        Args:
            history: whether with the steps that L-BFGS has learnt from, which are copied (see `Optimizer.state`).
        """
        return self._stage.snapshot(self.seconds, self._excess_seconds, history=history)


Transfer = Generator[TargetProgress | Iterate, None, None]
"""What `transfer` returns."""


def transfer(
    spec: TransferSpec,
    model: Vgg19,
    tile: int | None = None,
    styles: StyleCache | None = None,
    snapshot: Snapshot | ResizedStart | None = None,
) -> Transfer:
    """Stylise: yield after every turn of the optimiser, until one ends the transfer or the generator is closed.

    On a CPU a turn is a step. On a GPU it is some milliseconds of steps, which the host does not wait for one by one;
    it ends with every step that a preview is asked for.

    Before the first turn of a scale it yields after each part of the targets, too: those of a large picture take
    minutes. Nothing runs between two calls of `next()`, so that is where to look at a picture, to save a state, or to
    stop.

    Args:
        spec: what to do.
        model: the network.
        tile: edge of a tile in pixels, or None to take pictures as a whole.
        styles: statistics of styles that are known already, and where those that are computed shall be kept. The
            result is the same without.
        snapshot: of a transfer of the same specification, to go on from. What it was taken of is yielded again, first
            of all: there is a picture from the start. The targets of its scale are computed again, without counting
            as work; with the same tile and on the same CPU, all further steps are those that the other one took.
            Or a draft, to go on from its picture: the first step is the one after those that it has done.

    Raises:
        NonFiniteLossError: the loss is infinite or undefined and no recovery helped.
        SnapshotError: the snapshot is of a transfer of something else.
    """
    # Handed on, so that nobody but the run holds the snapshot, which may be as large as all that a step needs.
    return _Transfer(spec, model, tile, styles).run(snapshot)


def optimize(
    spec: TransferSpec,
    model: Vgg19,
    tile: int | None = None,
    styles: StyleCache | None = None,
    snapshot: Snapshot | ResizedStart | None = None,
) -> Iterator[Iterate]:
    """Yield what `transfer` yields after the turns of the optimiser."""
    for step in transfer(spec, model, tile, styles, snapshot):
        if isinstance(step, Iterate):
            yield step


class _Stopwatch:
    """Counts seconds of work."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._resumed = time.perf_counter()

    def pause(self) -> float:
        """Stop counting and return the seconds until now."""
        self._seconds += time.perf_counter() - self._resumed
        return self._seconds

    def resume(self) -> None:
        """Go on counting."""
        self._resumed = time.perf_counter()


class _Stage:
    """One scale of a transfer, and how far it is."""

    def __init__(
        self,
        number: int,
        scale: Scale,
        canvas: Canvas,
        optimizer: Optimizer,
        options: TransferOptions,
        *,
        iteration: int = 0,
    ):
        """Begin a scale.

        Args:
            number: of the scale, from 1.
            scale: its size and iterations.
            canvas: of that size.
            optimizer: where it starts.
            options: of the transfer.
            iteration: steps done at coarser scales.
        """
        self.number = number
        self.scale = scale
        self.canvas = canvas
        self.optimizer = optimizer
        self.iteration = iteration
        """Steps done over all scales."""
        self.done = 0
        """Steps done at this one."""
        self.step_seconds: float
        """Of the last step."""
        self.best: Evaluation
        self._has_best = False
        self._options = options
        self._average: Tensor | None = None
        self._losses: deque[float] = deque(maxlen=_IMPROVEMENT_WINDOW + 1)
        self._taken = 0
        """Steps that were taken here, by this process."""
        self._recorded: RecordedStep | None = None

    @classmethod
    def restored(cls, snapshot: Snapshot, scale: Scale, canvas: Canvas, options: TransferOptions) -> "_Stage":
        """Return the scale that a snapshot was taken of, as far as it was."""
        optimizer = _restored_optimizer(options, snapshot.optimizer)
        stage = cls(snapshot.scale, scale, canvas, optimizer, options, iteration=snapshot.iteration)
        stage.done = snapshot.done
        stage.step_seconds = snapshot.step_seconds
        stage.best, stage._has_best = snapshot.best, True
        stage._average = snapshot.average
        stage._losses.extend(snapshot.least_losses)
        return stage

    def snapshot(self, seconds: float, excess_seconds: float, *, history: bool) -> Snapshot:
        """Return how far it is, after so many seconds of work (see `Snapshot`)."""
        return Snapshot(
            scale=self.number,
            done=self.done,
            iteration=self.iteration,
            seconds=seconds,
            excess_seconds=excess_seconds,
            step_seconds=self.step_seconds,
            optimizer=self.optimizer.state(history=history),
            best=kept(self.best),
            least_losses=tuple(self._losses),
            average=None if self._average is None else kept_tensor(self._average),
        )

    @property
    def evaluation(self) -> Evaluation:
        """What the optimiser stands on."""
        return self.optimizer.accepted

    def turn(self, criterion: Criterion, steps: int) -> None:
        """Take steps of the optimiser.

        Raises:
            NonFiniteLossError: see `Optimizer.verify`.
        """
        started = time.perf_counter()
        for _ in range(steps):
            self._step(criterion)
        # Waits for the device.
        self.optimizer.verify()
        self._losses.append(self.best.loss)
        self.step_seconds = (time.perf_counter() - started) / steps

    @property
    def is_recorded(self) -> bool:
        """Whether its steps follow each other without the host."""
        return self._recorded is not None

    def forget_recording(self) -> None:
        """Give back the memory of the steps that are recorded."""
        self._recorded = None

    def _step(self, criterion: Criterion) -> None:
        """Take a step without waiting for the device."""
        is_on_gpu = is_gpu(self.canvas.content.device)
        if is_on_gpu and self._taken == _STEPS_BEFORE_RECORDING and not criterion.needs_host_sync:
            self._recorded = RecordedStep(lambda: self._compute(criterion), self._tensors, self._adopt)
        if self._recorded:
            self._recorded()
        else:
            self._compute(criterion)
        self._taken += 1
        self.done += 1
        self.iteration += 1

    def _compute(self, criterion: Criterion) -> None:
        self.optimizer.step(criterion)
        evaluation = self.evaluation
        better = either(evaluation.value < self.best.value, evaluation, self.best) if self._has_best else evaluation
        self.best, self._has_best = better, True
        if self._options.averaging:
            # The first iterate begins the average, so that nothing pulls it towards black.
            earlier = evaluation.pixels if self._average is None else self._average
            self._average = torch.lerp(evaluation.pixels, earlier, self._options.averaging)

    def _tensors(self) -> Sequence[Tensor]:
        """Return the tensors that a step replaces."""
        average = () if self._average is None else (self._average,)
        return *self.best.tensors(), *average, *self.optimizer.tensors()

    def _adopt(self, tensors: Sequence[Tensor]) -> None:
        """Take others for those."""
        pixels, gradient, values, *others = tensors
        self.best = self.best.with_tensors((pixels, gradient, values))
        if self._average is not None:
            self._average, *others = others
        self.optimizer.adopt(others)

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
        self._watch = _Stopwatch()
        self._excess_seconds = 0.0
        """See `Snapshot`."""

    def run(self, snapshot: Snapshot | ResizedStart | None) -> Transfer:
        stage: _Stage | None = None
        if snapshot is not None:
            self._excess_seconds = snapshot.excess_seconds
        if isinstance(snapshot, ResizedStart):
            stage = yield from self._redrawn(snapshot)
        elif snapshot is not None:
            self._check(snapshot)
            builder, seconds = self._builder(snapshot.scale), snapshot.seconds
            scale = self._scales[snapshot.scale - 1]
            stage = _Stage.restored(snapshot.to(self._model.device), scale, builder.canvas, self._options)
            del snapshot
            yield self._iterate(stage, seconds)
            self._watch = _Stopwatch(seconds)
            if not self._termination(stage, seconds):
                criterion = yield from self._criterion(builder, stage.number)
                # These targets have been counted when they were computed for the first time.
                self._watch = _Stopwatch(seconds)
                yield from self._optimize(stage, criterion)
        for number in range(1 if stage is None else stage.number + 1, len(self._scales) + 1):
            if stage is not None:
                # What it has used fits nothing of the next scale.
                release_memory(self._model.device)
            builder = self._builder(number)
            criterion = yield from self._criterion(builder, number)
            stage = self._opened(number, builder, stage)
            if number == 1:
                # The time begins with the first step.
                self._watch = _Stopwatch()
            yield from self._optimize(stage, criterion)

    def _redrawn(self, draft: ResizedStart) -> Generator[TargetProgress | Iterate, None, _Stage]:
        """Work on the rest of the scale of a draft, and return it."""
        self._check_place(draft)
        builder = self._builder(draft.scale)
        criterion = yield from self._criterion(builder, draft.scale)
        optimizer = _optimizer(self._options, draft.pixels.to(self._model.device))
        scale = self._scales[draft.scale - 1]
        stage = _Stage(draft.scale, scale, builder.canvas, optimizer, self._options, iteration=draft.iteration)
        stage.done = draft.done
        self._watch = _Stopwatch(draft.seconds)
        yield from self._optimize(stage, criterion)
        return stage

    def _builder(self, number: int) -> CriterionBuilder:
        scale = self._scales[number - 1]
        spec = self._spec.at(scale.size)
        canvas = self._full if scale.is_last else build_canvas(spec, self._model.device)
        return CriterionBuilder(spec, self._model, canvas, self._tile, self._styles)

    def _criterion(self, builder: CriterionBuilder, number: int) -> Generator[TargetProgress, None, Criterion]:
        """Compute the targets of a scale; yield after every part."""
        started = time.perf_counter()
        for part in builder.extract():
            preparing = TargetProgress(
                scale=number,
                scales=len(self._scales),
                part=part,
                parts=builder.parts,
                part_seconds=time.perf_counter() - started,
            )
            self._watch.pause()
            yield preparing
            self._watch.resume()
            started = time.perf_counter()
        criterion = builder.build()
        # What the targets have used fits little of the steps.
        release_memory(self._model.device)
        return criterion

    def _opened(self, number: int, builder: CriterionBuilder, coarser: _Stage | None) -> _Stage:
        """Return a scale before its first step."""
        spec, canvas = builder.spec, builder.canvas
        if coarser is None:
            optimizer = _optimizer(self._options, _initial_pixels(spec).to(self._model.device))
        else:
            optimizer = coarser.optimizer.moved(_carried(coarser.chosen, coarser.canvas, canvas))
        done = 0 if coarser is None else coarser.iteration
        return _Stage(number, self._scales[number - 1], canvas, optimizer, self._options, iteration=done)

    def _check(self, snapshot: Snapshot) -> None:
        self._check_place(snapshot)
        is_averaged = snapshot.average is not None
        if not (
            snapshot.done >= 1 and is_averaged == (self._options.averaging > 0) and self._is_ours(snapshot.optimizer)
        ):
            raise SnapshotError("is a snapshot of another transfer")

    def _check_place(self, snapshot: Snapshot | ResizedStart) -> None:
        number, done = snapshot.scale, snapshot.done
        iterations = [scale.iterations for scale in self._scales]
        if not (
            1 <= number <= len(self._scales)
            and snapshot.size == self._scales[number - 1].size
            and 0 <= done <= iterations[number - 1]
            and done <= snapshot.iteration <= sum(iterations[: number - 1]) + done
        ):
            raise SnapshotError("is a snapshot of another transfer")

    def _is_ours(self, state: OptimizerState) -> bool:
        match self._options.optimizer:
            case OptimizerKind.LBFGS:
                return isinstance(state, LBFGSState) and len(state.pairs) == min(
                    state.steps, self._options.curvature_pairs
                )
            case OptimizerKind.ADAM:
                return isinstance(state, AdamState)

    def _optimize(self, stage: _Stage, criterion: Criterion) -> Iterator[Iterate]:
        """Take the steps that a scale has left; yield after every turn."""
        termination = None
        while not termination:
            stage.turn(criterion, self._steps_of_turn(stage))
            elapsed = self._watch.pause()
            termination = self._termination(stage, elapsed)
            yield self._iterate(stage, elapsed)
            self._watch.resume()
        stage.forget_recording()

    def _steps_of_turn(self, stage: _Stage) -> int:
        """Return how many steps to take before anybody looks at the picture again."""
        # Whoever waits for a loss that no longer falls must look at every one, or the clock would decide on the result.
        if not stage.is_recorded or self._options.min_improvement:
            return 1
        steps = min(int(_TURN_SECONDS / stage.step_seconds), stage.scale.iterations - stage.done)
        if every := self._options.preview_every:
            steps = min(steps, every - stage.iteration % every)
        return max(1, steps)

    def _iterate(self, stage: _Stage, elapsed: float) -> Iterate:
        """Return where the transfer stands, after so many seconds of work."""
        pace = self._pace(stage, elapsed)
        return Iterate(
            iteration=stage.iteration,
            total_iterations=sum(scale.iterations for scale in self._scales),
            scale=stage.number,
            scales=len(self._scales),
            size=stage.scale.size,
            seconds=elapsed,
            step_seconds=stage.step_seconds,
            next_seconds=pace * stage.scale.step_work * self._steps_of_turn(stage),
            eta_seconds=self._eta(elapsed, pace * (self._total_work - self._work(stage))),
            termination=self._termination(stage, elapsed) if stage.scale.is_last else None,
            evaluation=stage.evaluation,
            best=stage.best,
            _excess_seconds=self._excess_seconds,
            _stage=stage,
            _full=self._full,
        )

    def _work(self, stage: _Stage) -> float:
        """Return the work until now, in pixels; a scale that ended early counts as if it had not."""
        coarser = sum(scale.work for scale in self._scales[: stage.number - 1])
        return coarser + stage.done * stage.scale.step_work

    def _pace(self, stage: _Stage, elapsed: float) -> float:
        """Return the seconds that a pixel of work takes, after so many seconds of it."""
        return (elapsed - self._excess_seconds) / self._work(stage)

    def _termination(self, stage: _Stage, elapsed: float) -> TerminationReason | None:
        """Return why a scale ends after so many seconds of work, or None."""
        if stage.done == stage.scale.iterations:
            return TerminationReason.ITERATIONS
        # A scale that ended early leaves its time to the next.
        planned = sum(scale.work for scale in self._scales[: stage.number])
        allowed = self._options.time_budget_seconds * planned / self._total_work or math.inf
        next_seconds = self._pace(stage, elapsed) * stage.scale.step_work
        if elapsed + next_seconds > allowed:
            return TerminationReason.TIME_BUDGET
        return TerminationReason.CONVERGED if stage.is_flat else None

    def _eta(self, elapsed: float, seconds: float) -> float:
        budget = self._options.time_budget_seconds
        return min(seconds, max(0.0, budget - elapsed)) if budget else seconds


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
        case OptimizerKind.LBFGS:
            return LBFGS(pixels, learning_rate=learning_rate, history=options.curvature_pairs)
        case OptimizerKind.ADAM:
            return Adam(pixels, learning_rate=learning_rate)


def _restored_optimizer(options: TransferOptions, state: OptimizerState) -> Optimizer:
    match state:
        case LBFGSState():
            assert options.learning_rate is not None
            return LBFGS.restored(state, learning_rate=options.learning_rate, history=options.curvature_pairs)
        case AdamState():
            return Adam.restored(state)
