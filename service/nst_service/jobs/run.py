"""One run of a job, step by step, from Started to the picture."""

import dataclasses
import hashlib
import math
import time
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from nst_service.engine.estimate import estimate, step_work
from nst_service.engine.memory.fit import Memory
from nst_service.engine.memory.footprint import keeps_history, least_bytes
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.style_cache import StyleCache
from nst_service.engine.optim.resized_start import ResizedStart, resize_start
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import Iterate, TargetProgress, TerminationReason, Transfer, transfer
from nst_service.engine.outline import TransferOutline
from nst_service.engine.pictures.encode import encode
from nst_service.engine.pictures.formats import WRITTEN_FORMATS
from nst_service.engine.pictures.preview import PREVIEW_MEDIA_TYPE, preview
from nst_service.engine.provenance import describe
from nst_service.engine.spec import TransferSpec
from nst_service.jobs import events
from nst_service.jobs.errors import JobCancelledError
from nst_service.jobs.events import (
    Completed,
    JobResult,
    Preview,
    Progress,
    Reduced,
    ResultHeader,
    Started,
    Timings,
)
from nst_service.jobs.job import Job, RunState, Work
from nst_service.jobs.memory_fit import reduced
from nst_service.jobs.sink import RunSink
from nst_service.jobs.throughput import Throughput
from nst_service.lifecycle import StopReason

PROGRESS_INTERVAL = 0.1
"""Seconds between two Progress or Preparing events of a job whose steps are faster than that."""

_VERSION = version("nst-stylize")

_STOP_REASONS = MappingProxyType(
    {
        TerminationReason.ITERATIONS: StopReason.ITERATIONS,
        TerminationReason.CONVERGED: StopReason.CONVERGED,
        TerminationReason.TIME_BUDGET: StopReason.TIME_BUDGET,
    }
)


class Run:
    """A job on its device. Nothing happens between two calls, so that other jobs can use the device meanwhile."""

    def __init__(
        self,
        job: Job,
        spec: TransferSpec,
        sink: RunSink,
        model: Vgg19,
        throughput: Throughput,
        *,
        snapshot: Snapshot | None = None,
        styles: StyleCache | None = None,
    ):
        """Make a run.

        Args:
            job: the job.
            spec: its specification.
            sink: takes the reports of the run.
            model: the network, on the device.
            throughput: gets the measurement of every step.
            snapshot: the snapshot to go on from; None to start from the beginning.
            styles: the cached statistics of styles.
        """
        self.job = job
        self.sink = sink
        self._spec = spec
        self._model = model
        self._throughput = throughput
        self._styles = styles
        self._start: Snapshot | ResizedStart | None = snapshot
        """The start of the optimisation; None for the beginning, and as soon as the first step is done."""
        self._steps = self._transfer()
        self._first_iteration = self._counted_iterations = snapshot.iteration if snapshot else 0
        """The number of steps that were done before the run began, and of those that `RunState.work` has so far."""
        self._saved_checkpoint = math.inf
        """The `JobControl.next_checkpoint` for which the last snapshot was handed over."""
        self._preparing: TargetProgress | None = None
        """The last step, if it computed targets; None if it was one of the optimiser."""
        self._iterate: Iterate | None = None
        self._started_at = self._began_at = 0.0
        self._next_report = 0.0

    @property
    def _queued(self) -> float:
        return self._started_at - self.job.plan.accepted_at

    @property
    def _state(self) -> RunState:
        return self.job.run_state

    def _update_state(self, **changes: Any) -> None:
        self.job.run_state = dataclasses.replace(self.job.run_state, **changes)

    def start(self) -> None:
        """Report that the job has begun to run."""
        self._started_at = time.monotonic()
        self._next_report = self._started_at + PROGRESS_INTERVAL
        self.sink.publish(Started(device=str(self._model.device), queued_seconds=self._queued))

    def step(self) -> None:
        """Take a step of the optimiser, or compute a part of the targets."""
        match next(self._steps):
            case TargetProgress() as preparing:
                self._preparing = preparing
                self._update_state(
                    next_seconds=preparing.part_seconds, work=self._more_work(device_seconds=preparing.part_seconds)
                )
            case Iterate() as iterate:
                self._preparing = None
                self._note(iterate)

    def _note(self, iterate: Iterate) -> None:
        if self._iterate is None:
            self._began_at = time.monotonic() - iterate.seconds
            self._start = None
        steps, taken_back = iterate.iteration - self._counted_iterations, iterate.taken_back
        if self._iterate and self._iterate.scale == iterate.scale:
            taken_back -= self._iterate.taken_back
        self._iterate, self._counted_iterations = iterate, iterate.iteration
        work = step_work(self._spec.options, iterate.size, self._state.cost.tile_size)
        self._throughput.observe(work, iterate.step_seconds)
        self._update_state(
            next_seconds=iterate.next_seconds,
            remaining_seconds=iterate.eta_seconds,
            work=self._more_work(
                iterations=steps,
                megapixel_iterations=steps * math.prod(iterate.size) / 1e6,
                taken_back=taken_back,
                device_seconds=steps * iterate.step_seconds,
            ),
        )

    def _more_work(
        self,
        *,
        iterations: int = 0,
        megapixel_iterations: float = 0.0,
        taken_back: int = 0,
        device_seconds: float = 0.0,
    ) -> Work:
        done = self._state.work
        return Work(
            iterations=done.iterations + iterations,
            megapixel_iterations=done.megapixel_iterations + megapixel_iterations,
            taken_back=done.taken_back + taken_back,
            device_seconds=done.device_seconds + device_seconds,
        )

    def _transfer(self) -> Transfer:
        spec, tile_size = self._spec, self._state.cost.tile_size
        if self._start:
            # It may have the size before a reduction. Here the memory of the larger picture is free.
            self._start = resize_start(self._start, spec)
        yield from transfer(spec, self._model, tile_size, self._styles, self._start)

    def shrink(self) -> bool:
        """Go on from the last step with about half the memory, and return whether that is possible.

        The picture is processed in smaller tiles. If there are none, its size is reduced, if the request allows it.
        """
        outline, cost = self._state.outline, self._state.cost
        backend = self._model.backend
        memory = Memory((cost.peak_bytes + least_bytes(backend)) // 2, backend)
        less = estimate(outline, memory)
        smaller: TransferOutline | None = None
        if less.tile_size is None or less.tile_size >= (cost.tile_size or math.inf):
            smaller = reduced(outline, memory)
            if smaller is None:
                return False
        if self._iterate:
            # The history of the optimiser is useless at another size.
            self._start = self._snapshot(self._iterate, history=smaller is None)
        if smaller:
            outline, less = smaller, estimate(smaller, memory)
            self._spec = self._spec.reduced(smaller.size)
        remaining = self._state.remaining_seconds * less.work / cost.work
        self._update_state(outline=outline, cost=less, remaining_seconds=remaining)
        self.sink.shrunk(Reduced(width=outline.size.width, height=outline.size.height) if smaller else None)
        self._restart()
        return True

    def begin_anew(self) -> None:
        """Start from the beginning instead of from the snapshot."""
        self._start, self._first_iteration, self._counted_iterations = None, 0, 0
        self._restart()

    def _restart(self) -> None:
        self.close()
        self._steps = self._transfer()

    def save(self) -> None:
        """Hand over a snapshot to be stored, if one is wanted and there is a new step."""
        wanted = self.job.control.next_checkpoint
        if wanted != self._saved_checkpoint and time.monotonic() >= wanted and (snapshot := self.snapshot()):
            self._saved_checkpoint = wanted
            self.sink.save(snapshot)

    def snapshot(self) -> Snapshot | None:
        """Return a snapshot of the last step; None if there is no new step since the run began."""
        iterate = self._iterate
        return self._snapshot(iterate) if iterate and iterate.iteration > self._first_iteration else None

    def _snapshot(self, iterate: Iterate, *, history: bool = True) -> Snapshot:
        return iterate.snapshot(history=history and keeps_history(self._spec.options, iterate.size))

    def close(self) -> None:
        """Free the memory that the run holds on the device."""
        self._steps.close()
        self._iterate = None

    def report(self, eta_seconds: float) -> None:
        """Report the last step.

        Args:
            eta_seconds: expected seconds until the last iteration, including the turns of other jobs.
        """
        if preparing := self._preparing:
            if self._is_due():
                self.sink.publish(
                    events.Preparing(
                        scale=preparing.scale, scales=preparing.scales, part=preparing.part, parts=preparing.parts
                    )
                )
            return
        iterate, options = self._iterate, self._spec.options
        assert iterate is not None
        if self._is_due() or iterate.iteration == 1 or iterate.is_last:
            self.sink.publish(
                Progress(
                    scale=iterate.scale,
                    scales=iterate.scales,
                    iteration=iterate.iteration,
                    total_iterations=iterate.total_iterations,
                    total_loss=iterate.evaluation.loss,
                    terms=iterate.evaluation.term_values(),
                    elapsed_seconds=time.monotonic() - self._began_at,
                    eta_seconds=eta_seconds,
                )
            )
        if options.preview_every and iterate.iteration % options.preview_every == 0:
            small = preview(iterate.preview(options.preview_size), longest_edge=options.preview_size)
            self.sink.publish(
                Preview(
                    iteration=iterate.iteration,
                    media_type=PREVIEW_MEDIA_TYPE,
                    width=small.width,
                    height=small.height,
                    data=small.data,
                )
            )

    def _is_due(self) -> bool:
        """Return whether it is time to report a step again, and reset the time if so."""
        now = time.monotonic()
        if now < self._next_report:
            return False
        self._next_report = now + PROGRESS_INTERVAL
        return True

    def reason_to_stop(self, wait_seconds: float) -> StopReason | None:
        """Return the reason for which the job must stop; None if it may take another step.

        Args:
            wait_seconds: expected seconds until the next turn of the job.

        Raises:
            JobCancelledError: the job was cancelled before its first picture, or abandoned.
        """
        control, deadline = self.job.control, self.job.plan.deadline
        # The first step of a job that goes on gives the picture that it had before.
        is_fresh = self._iterate is None and self._start is None
        if control.is_abandoned or (is_fresh and control.stop_requested is StopReason.CANCELLED):
            raise JobCancelledError
        if self._iterate is None:
            return None
        if control.stop_requested:
            return control.stop_requested
        if self._iterate.termination:
            return _STOP_REASONS[self._iterate.termination]
        if deadline is None:
            return None
        # There must be time for another step, and to encode and send the picture.
        megapixels = math.prod(self._spec.content.size) / 1e6
        needed = wait_seconds + 1.5 * self._state.next_seconds + 0.25 + 0.5 * megapixels
        return StopReason.DEADLINE if deadline - time.monotonic() < needed else None

    def finish(self, stop_reason: StopReason) -> JobResult:
        """Encode the best picture and return the result of the job."""
        iterate = self._iterate
        assert iterate is not None
        spec, best = self._spec, iterate.best
        content, output = spec.content, spec.output
        optimized_at = time.monotonic()
        data = encode(
            iterate.result(),
            format=output.format,
            quality=output.quality,
            bits=output.bits,
            alpha=content.alpha,
            description=describe(spec, self._model, _VERSION) if output.metadata else None,
        )
        encoded_at = time.monotonic()
        return JobResult(
            header=ResultHeader(
                media_type=WRITTEN_FORMATS[output.format].media_type,
                width=content.width,
                height=content.height,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            ),
            data=data,
            completed=Completed(
                stop_reason=stop_reason,
                iterations=iterate.iteration,
                total_loss=best.loss,
                terms=best.term_values(),
                timings=Timings(
                    queued=self._queued,
                    targets=max(0.0, self._began_at - self._started_at),
                    optimize=optimized_at - self._began_at,
                    encode=encoded_at - optimized_at,
                ),
            ),
        )
