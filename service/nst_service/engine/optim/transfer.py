"""The optimisation as a generator: one optimiser step, or one part of its targets, per `next()`."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor

from nst_service.engine.devices import release_memory
from nst_service.engine.errors import SnapshotError
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.builder import build_canvas, compose_criterion
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.evaluation import Evaluation
from nst_service.engine.objective.style_cache import StyleCache
from nst_service.engine.objective.targets import TargetComputation
from nst_service.engine.optim.initial_pixels import initial_pixels
from nst_service.engine.optim.optimizer import is_state_of, make_optimizer
from nst_service.engine.optim.resized_start import ResizedStart
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.stage import Stage
from nst_service.engine.optim.timing import Stopwatch, TimePlan
from nst_service.engine.scales import schedule
from nst_service.engine.sizes import Size, fit
from nst_service.engine.spec import TransferSpec

_TURN_SECONDS = 0.05
"""Seconds of steps that a GPU takes before the host looks at any of them."""


class TerminationReason(StrEnum):
    """Why a transfer ended by itself."""

    ITERATIONS = "iterations"
    """All iterations are done."""
    CONVERGED = "converged"
    """The loss no longer falls by `min_improvement`."""
    TIME_BUDGET = "time_budget"
    """`time_budget_seconds` is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetProgress:
    """The progress of computing the targets of a scale, which its first step needs."""

    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    scales: int
    """Number of scales."""
    part: int
    """Parts done, from 1."""
    parts: int
    """Number of parts: one for each picture whose features are needed, or one for each of its tiles."""
    part_seconds: float
    """Seconds of the last part alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterate:
    """The position of an optimisation after a turn."""

    iteration: int
    """Steps done, from 1, over all scales. A CPU takes one per turn, a GPU several."""
    total_iterations: int
    """Steps that will be done if nothing ends them early, over all scales."""
    scale: int
    """The scale being worked on, from 1, coarse to fine."""
    scales: int
    """Number of scales."""
    seconds: float
    """Seconds of work since the first step began; what others did between the turns does not count."""
    step_seconds: float
    """Seconds of this step alone."""
    size: Size
    """Size in pixels of the scale being worked on."""
    next_seconds: float
    """Expected seconds of the next turn."""
    eta_seconds: float
    """Expected seconds of work until the last iteration."""
    termination: TerminationReason | None
    """Why this is the last iterate, or None where more follow."""
    evaluation: Evaluation
    """The evaluation that the optimiser accepted last."""
    best: Evaluation
    """The evaluation with the least loss at this scale."""
    _excess_seconds: float
    _stage: Stage
    _full_canvas: Canvas

    @property
    def is_last(self) -> bool:
        """Whether the transfer has ended."""
        return self.termination is not None

    @property
    def taken_back(self) -> int:
        """Steps at this scale that were taken back, since the optimiser began or was restored.

        Like all that this class returns, it is of the last turn: ask before the next.
        """
        return self._stage.optimizer.taken_back

    def picture(self) -> Tensor:
        """Return the picture as it stands, (1, 3, h, w) in [0, 1], at the size of the scale."""
        return self._stage.canvas.finish(self._stage.current_pixels)

    def preview(self, longest_edge: int) -> Tensor:
        """Return the picture as it stands, (1, 3, h, w) in [0, 1], for a preview with this longest edge.

        A coarse scale has fewer pixels than the preview. Its change of the content is interpolated to the size of the
        preview, so that the content is as sharp as in the result.
        """
        full = Size.of(self._full_canvas.content)
        wanted = fit(full, min(longest_edge, max(full)))
        if max(self.size) >= max(wanted):
            return self.picture()
        canvas = self._full_canvas.reduced(wanted.shape)
        return canvas.finish(self._stage.canvas.resampled(self._stage.current_pixels, canvas))

    def result(self) -> Tensor:
        """Return the best picture so far, (1, 3, H, W) in [0, 1], at full size."""
        pixels = self._stage.canvas.resampled(self._stage.result_pixels, self._full_canvas)
        return self._full_canvas.finish(pixels)

    def snapshot(self, *, history: bool = True) -> Snapshot:
        """Return what `transfer` needs to go on after this turn.

        Like all that this class returns, it is of the last turn: ask before the next.

        Args:
            history: whether to include the curvature pairs of L-BFGS, which are copied (see `Optimizer.state`).
        """
        return self._stage.snapshot(self.seconds, self._excess_seconds, history=history)


Transfer = Generator[TargetProgress | Iterate, None, None]
"""The generator that `transfer` returns."""


def transfer(
    spec: TransferSpec,
    model: Vgg19,
    tile_size: int | None = None,
    style_cache: StyleCache | None = None,
    start: Snapshot | ResizedStart | None = None,
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
        tile_size: edge of a tile in pixels, or None to take pictures as a whole.
        style_cache: statistics of styles that are known already; those that are computed are added. The result does
            not depend on it.
        start: where to go on from, or None to begin. A snapshot is of a transfer of the same specification. Its
            iterate is yielded first of all, so that there is a picture from the start. The targets of its scale are
            computed again, without counting as work; with the same tile and on the same CPU, all further steps are
            those that the other transfer took. A resized start has only a picture: its first iterate is the one after
            the steps that it has done.

    Raises:
        NonFiniteLossError: the loss is infinite or undefined and no recovery helped.
        SnapshotError: the start is of a transfer of something else.
    """
    # Handed on, so that nobody but the run holds the start, which may be as large as all that a step needs.
    excess_seconds = 0.0 if start is None else start.excess_seconds
    return _Run(spec, model, tile_size, style_cache, excess_seconds).run(start)


def optimize(
    spec: TransferSpec,
    model: Vgg19,
    tile_size: int | None = None,
    style_cache: StyleCache | None = None,
    start: Snapshot | ResizedStart | None = None,
) -> Iterator[Iterate]:
    """Yield what `transfer` yields after the turns of the optimiser."""
    for step in transfer(spec, model, tile_size, style_cache, start):
        if isinstance(step, Iterate):
            yield step


class _Run:
    """One run of `transfer`."""

    def __init__(
        self,
        spec: TransferSpec,
        model: Vgg19,
        tile_size: int | None,
        style_cache: StyleCache | None,
        excess_seconds: float,
    ):
        self._spec = spec
        self._options = spec.options
        self._model = model
        self._tile_size = tile_size
        self._style_cache = style_cache
        self._full_canvas = build_canvas(spec, model.device)
        self._scales = schedule(spec.content.size, spec.options.scale_iterations)
        self._time_plan = TimePlan(self._scales, spec.options.time_budget_seconds, excess_seconds)
        self._stopwatch = Stopwatch()

    def run(self, start: Snapshot | ResizedStart | None) -> Transfer:
        stage: Stage | None = None
        if isinstance(start, ResizedStart):
            stage = yield from self._run_resized(start)
        elif start is not None:
            self._check(start)
            seconds, scale = start.seconds, self._scales[start.scale - 1]
            spec, canvas = self._set_up(start.scale)
            stage = Stage.restored(start.to(self._model.device), scale, canvas, self._options)
            # The stage holds what it needs of it.
            del start
            yield from self._run_restored(stage, spec, seconds)
        for number in range(1 if stage is None else stage.number + 1, len(self._scales) + 1):
            if stage is not None:
                # What it has used fits nothing of the next scale.
                release_memory(self._model.device)
            spec, canvas = self._set_up(number)
            criterion = yield from self._prepare(number, spec, canvas)
            stage = self._next_stage(number, spec, canvas, stage)
            if number == 1:
                # The time begins with the first step.
                self._stopwatch = Stopwatch()
            yield from self._optimize(stage, criterion)

    def _run_restored(
        self, stage: Stage, spec: TransferSpec, seconds: float
    ) -> Generator[TargetProgress | Iterate, None, None]:
        """Take the steps that the stage of a snapshot has left, after so many seconds of work."""
        yield self._iterate(stage, seconds)
        self._stopwatch = Stopwatch(seconds)
        if not self._termination(stage, seconds):
            criterion = yield from self._prepare(stage.number, spec, stage.canvas)
            # These targets have been counted when they were computed for the first time.
            self._stopwatch = Stopwatch(seconds)
            yield from self._optimize(stage, criterion)

    def _run_resized(self, start: ResizedStart) -> Generator[TargetProgress | Iterate, None, Stage]:
        """Take the steps that the scale of a resized start has left, and return the stage."""
        self._check_position(start)
        spec, canvas = self._set_up(start.scale)
        criterion = yield from self._prepare(start.scale, spec, canvas)
        optimizer = make_optimizer(self._options, start.result_pixels.to(self._model.device))
        stage = Stage(
            start.scale,
            self._scales[start.scale - 1],
            canvas,
            optimizer,
            self._options,
            done=start.done,
            iteration=start.iteration,
        )
        self._stopwatch = Stopwatch(start.seconds)
        yield from self._optimize(stage, criterion)
        return stage

    def _set_up(self, number: int) -> tuple[TransferSpec, Canvas]:
        """Return the specification of a scale and its canvas."""
        scale = self._scales[number - 1]
        spec = self._spec.at(scale.size)
        return spec, self._full_canvas if scale.is_last else build_canvas(spec, self._model.device)

    def _prepare(self, number: int, spec: TransferSpec, canvas: Canvas) -> Generator[TargetProgress, None, Criterion]:
        """Compute the targets of a scale, yield after every part, and return the criterion."""
        computation = TargetComputation(spec, self._model, canvas, self._tile_size, self._style_cache)
        started = time.perf_counter()
        for part in computation.run():
            progress = TargetProgress(
                scale=number,
                scales=len(self._scales),
                part=part,
                parts=computation.parts,
                part_seconds=time.perf_counter() - started,
            )
            self._stopwatch.pause()
            yield progress
            self._stopwatch.resume()
            started = time.perf_counter()
        criterion = compose_criterion(spec, self._model, canvas, computation.targets, self._tile_size)
        # What the targets have used fits little of the steps.
        release_memory(self._model.device)
        return criterion

    def _next_stage(self, number: int, spec: TransferSpec, canvas: Canvas, coarser: Stage | None) -> Stage:
        """Return a stage before its first step, which goes on from a coarser one if there is one."""
        if coarser is None:
            optimizer = make_optimizer(self._options, initial_pixels(spec).to(self._model.device))
        else:
            optimizer = coarser.optimizer.resampled(coarser.canvas.resampled(coarser.result_pixels, canvas))
        iteration = 0 if coarser is None else coarser.iteration
        return Stage(number, self._scales[number - 1], canvas, optimizer, self._options, iteration=iteration)

    def _check(self, snapshot: Snapshot) -> None:
        """Raise SnapshotError for a snapshot of another transfer."""
        self._check_position(snapshot)
        is_averaged = snapshot.average is not None
        is_ours = is_averaged == (self._options.averaging > 0) and is_state_of(snapshot.optimizer, self._options)
        if snapshot.done < 1 or not is_ours:
            raise SnapshotError("is a snapshot of another transfer")

    def _check_position(self, start: Snapshot | ResizedStart) -> None:
        """Raise SnapshotError for a start at a scale, size or iteration that the transfer does not have."""
        number, done = start.scale, start.done
        iterations = [scale.iterations for scale in self._scales]
        if not (
            1 <= number <= len(self._scales)
            and start.size == self._scales[number - 1].size
            and 0 <= done <= iterations[number - 1]
            and done <= start.iteration <= sum(iterations[: number - 1]) + done
        ):
            raise SnapshotError("is a snapshot of another transfer")

    def _optimize(self, stage: Stage, criterion: Criterion) -> Iterator[Iterate]:
        """Take the steps that a stage has left; yield after every turn."""
        termination = None
        while not termination:
            stage.take_steps(criterion, self._steps_of_turn(stage))
            elapsed = self._stopwatch.pause()
            termination = self._termination(stage, elapsed)
            yield self._iterate(stage, elapsed)
            self._stopwatch.resume()
        stage.discard_recording()

    def _steps_of_turn(self, stage: Stage) -> int:
        """Return the number of steps before anybody looks at the picture again."""
        # With `min_improvement`, every loss is looked at: else the clock would decide on the result.
        if not stage.is_recorded or self._options.min_improvement:
            return 1
        steps = min(int(_TURN_SECONDS / stage.step_seconds), stage.scale.iterations - stage.done)
        if every := self._options.preview_every:
            steps = min(steps, every - stage.iteration % every)
        return max(1, steps)

    def _iterate(self, stage: Stage, elapsed: float) -> Iterate:
        """Return the iterate of a stage after so many seconds of work."""
        return Iterate(
            iteration=stage.iteration,
            total_iterations=sum(scale.iterations for scale in self._scales),
            scale=stage.number,
            scales=len(self._scales),
            size=stage.scale.size,
            seconds=elapsed,
            step_seconds=stage.step_seconds,
            next_seconds=self._time_plan.step_seconds(stage, elapsed) * self._steps_of_turn(stage),
            eta_seconds=self._time_plan.remaining_seconds(stage, elapsed),
            termination=self._termination(stage, elapsed) if stage.scale.is_last else None,
            evaluation=stage.evaluation,
            best=stage.best,
            _excess_seconds=self._time_plan.excess_seconds,
            _stage=stage,
            _full_canvas=self._full_canvas,
        )

    def _termination(self, stage: Stage, elapsed: float) -> TerminationReason | None:
        """Return why a stage ends after so many seconds of work, or None."""
        if stage.is_done:
            return TerminationReason.ITERATIONS
        if not self._time_plan.allows_another_step(stage, elapsed):
            return TerminationReason.TIME_BUDGET
        return TerminationReason.CONVERGED if stage.has_converged else None
