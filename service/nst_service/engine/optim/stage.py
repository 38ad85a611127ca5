"""A stage of a transfer: the work on one scale, and where it stands."""

import time
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from nst_service.engine.network.precision import is_gpu
from nst_service.engine.objective.canvas import Canvas
from nst_service.engine.objective.criterion import Criterion
from nst_service.engine.objective.evaluation import Evaluation
from nst_service.engine.optim.cuda_graph import RecordedStep, stable_evaluation, stable_tensor
from nst_service.engine.optim.optimizer import Optimizer, restored_optimizer
from nst_service.engine.optim.selection import select_evaluation
from nst_service.engine.optim.snapshot import Snapshot, result_pixels
from nst_service.engine.options import TransferOptions
from nst_service.engine.scales import Scale

_IMPROVEMENT_WINDOW = 10
"""Iterations over which `min_improvement` is measured."""
_STEPS_BEFORE_RECORDING = 2
"""Steps before one is recorded: the first of an optimiser differs from the rest, the second has loaded all kernels."""


class Stage:
    """The work on one scale: the optimiser, the best of its iterates, and their average."""

    def __init__(
        self,
        number: int,
        scale: Scale,
        canvas: Canvas,
        optimizer: Optimizer,
        options: TransferOptions,
        *,
        done: int = 0,
        iteration: int = 0,
    ):
        """Begin a stage.

        Args:
            number: number of the scale, from 1, coarse to fine.
            scale: its size and iterations.
            canvas: canvas of that size.
            optimizer: optimiser before its first step.
            options: options of the transfer.
            done: steps done at this scale.
            iteration: steps done over all scales.
        """
        self.number = number
        self.scale = scale
        self.canvas = canvas
        self.optimizer = optimizer
        self.done = done
        self.iteration = iteration
        self.step_seconds: float
        """Seconds of the last step, from the first one on."""
        self.best: Evaluation
        """The evaluation with the least loss, from the first step on."""
        self._has_best = False
        self._options = options
        self._average: Tensor | None = None
        """Moving average of the iterates, (1, 3, H, W), where the options ask for it."""
        self._least_losses: deque[float] = deque(maxlen=_IMPROVEMENT_WINDOW + 1)
        """Least loss up to each of the last steps."""
        self._taken = 0
        """Steps that this process has taken."""
        self._recorded_step: RecordedStep | None = None

    @classmethod
    def restored(cls, snapshot: Snapshot, scale: Scale, canvas: Canvas, options: TransferOptions) -> "Stage":
        """Return the stage that a snapshot was taken of, as far as it was."""
        optimizer = restored_optimizer(options, snapshot.optimizer)
        done, iteration = snapshot.done, snapshot.iteration
        stage = cls(snapshot.scale, scale, canvas, optimizer, options, done=done, iteration=iteration)
        stage.step_seconds = snapshot.step_seconds
        stage.best, stage._has_best = snapshot.best, True
        stage._average = snapshot.average
        stage._least_losses.extend(snapshot.least_losses)
        return stage

    def snapshot(self, seconds: float, excess_seconds: float, *, history: bool) -> Snapshot:
        """Return a snapshot after so many seconds of work (see `Snapshot`)."""
        return Snapshot(
            scale=self.number,
            done=self.done,
            iteration=self.iteration,
            seconds=seconds,
            excess_seconds=excess_seconds,
            step_seconds=self.step_seconds,
            optimizer=self.optimizer.state(history=history),
            best=stable_evaluation(self.best),
            least_losses=tuple(self._least_losses),
            average=None if self._average is None else stable_tensor(self._average),
        )

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation that the optimiser accepted last."""
        return self.optimizer.accepted

    @property
    def current_pixels(self) -> Tensor:
        """The pixels of the picture as it stands: the average of the iterates, or the last accepted one."""
        return self.evaluation.pixels if self._average is None else self._average

    @property
    def result_pixels(self) -> Tensor:
        """The pixels of the result so far (see `result_pixels`)."""
        return result_pixels(self.best, self._average)

    @property
    def is_done(self) -> bool:
        """Whether all iterations of the scale are done."""
        return self.done == self.scale.iterations

    @property
    def has_converged(self) -> bool:
        """Whether the last iterations improved the loss by less than `min_improvement`."""
        if len(self._least_losses) <= _IMPROVEMENT_WINDOW:
            return False
        first, last = self._least_losses[0], self._least_losses[-1]
        return first - last < self._options.min_improvement * first

    def take_steps(self, criterion: Criterion, steps: int) -> None:
        """Take steps of the optimiser, and wait for the device after the last of them.

        Raises:
            NonFiniteLossError: see `Optimizer.verify`.
        """
        started = time.perf_counter()
        for _ in range(steps):
            self._take_step(criterion)
        # Waits for the device.
        self.optimizer.verify()
        self._least_losses.append(self.best.loss)
        self.step_seconds = (time.perf_counter() - started) / steps

    @property
    def is_recorded(self) -> bool:
        """Whether steps follow each other without the host."""
        return self._recorded_step is not None

    def discard_recording(self) -> None:
        """Give back the memory of the recorded step."""
        self._recorded_step = None

    def _take_step(self, criterion: Criterion) -> None:
        """Take a step without waiting for the device."""
        is_on_gpu = is_gpu(self.canvas.content.device)
        if is_on_gpu and self._taken == _STEPS_BEFORE_RECORDING and not criterion.needs_host_sync:
            self._recorded_step = RecordedStep(lambda: self._compute_step(criterion), self._tensors, self._set_tensors)
        if self._recorded_step:
            self._recorded_step()
        else:
            self._compute_step(criterion)
        self._taken += 1
        self.done += 1
        self.iteration += 1

    def _compute_step(self, criterion: Criterion) -> None:
        self.optimizer.step(criterion)
        evaluation = self.evaluation
        if self._has_best:
            self.best = select_evaluation(evaluation.value < self.best.value, evaluation, self.best)
        else:
            self.best, self._has_best = evaluation, True
        if self._options.averaging:
            # The first iterate begins the average, so that nothing pulls it towards black.
            earlier = evaluation.pixels if self._average is None else self._average
            self._average = torch.lerp(evaluation.pixels, earlier, self._options.averaging)

    def _tensors(self) -> Sequence[Tensor]:
        """Return the tensors that a step replaces."""
        average = () if self._average is None else (self._average,)
        return *self.best.tensors(), *average, *self.optimizer.tensors()

    def _set_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors that `_tensors` returned."""
        pixels, gradient, values, *others = tensors
        self.best = self.best.with_tensors((pixels, gradient, values))
        if self._average is not None:
            self._average, *others = others
        self.optimizer.set_tensors(others)
