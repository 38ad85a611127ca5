"""Runs the jobs of one device in one thread: whose turn it is takes a step, and nothing is shared but the device."""

import logging
import math
import time
from collections.abc import Callable
from queue import SimpleQueue

import torch

from nst_service.engine.devices import available_bytes, release_memory
from nst_service.engine.errors import NonFiniteLossError, SnapshotError
from nst_service.engine.estimate import step_work
from nst_service.engine.memory.fit import Memory
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.style_cache import StyleCache
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import DEFAULT_PRESET, KEEP_SIZE, OutputOptions, TransferOptions
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size
from nst_service.engine.spec import Style, TransferSpec
from nst_service.jobs.errors import JobError, JobFailedError
from nst_service.jobs.fair_queue import FairQueue
from nst_service.jobs.job import Job
from nst_service.jobs.memory_fit import does_not_fit
from nst_service.jobs.placement import ends, weight
from nst_service.jobs.run import Run
from nst_service.jobs.sink import Outcome, Requeued, RunSink
from nst_service.jobs.throughput import Throughput

_log = logging.getLogger(__name__)


class DeviceWorker:
    """Runs jobs on one device, several at once if they come so.

    `join` and `close` may be called from any thread; everything else but the constructor belongs to the worker's own.
    """

    def __init__(self, model: Vgg19, max_job_bytes: int = 0, style_cache_bytes: int = 0):
        """Make the worker of the device that a model is on.

        Args:
            model: the network.
            max_job_bytes: memory that a job can have at most; 0 for all that the device has.
            style_cache_bytes: memory for the statistics of styles that may come again.
        """
        self.device = model.device
        self.throughput = Throughput()
        self.memory = 0
        """Bytes that all jobs can have together; known after the warm-up."""
        self._model = model
        self._max_job_bytes = max_job_bytes
        self._styles = StyleCache(style_cache_bytes)
        self._arrivals: SimpleQueue[Run | None] = SimpleQueue()
        self._runs: list[Run] = []
        self._share: FairQueue[Run] = FairQueue()
        self._has_failed = False

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the network has, in order."""
        return self._model.layers

    @property
    def capacity(self) -> Memory:
        """What a job can have."""
        return Memory(min(self.memory, self._max_job_bytes or self.memory), self._model.backend)

    def warm_up(self) -> None:
        """Run a few steps, so that the first job finds everything loaded and the pace of the device known."""
        size = Size(256, 192)
        picture = Picture.blank(size)
        # What most jobs use, as far as the weights reach.
        reached = {layer: 1.0 for layer in TransferOptions().active_layers if layer in self._model.layers}
        options = TransferOptions.from_preset(
            DEFAULT_PRESET,
            iterations=4,
            scales=1,
            image_size=KEEP_SIZE,
            content_layers={},
            style_layers=reached or {self._model.layers[-1]: 1.0},
        ).completed()
        spec = TransferSpec(
            content=picture,
            styles=(Style(picture=picture, share=1.0),),
            options=options,
            output=OutputOptions(),
        )
        # The first ones find nothing in place yet.
        seconds = min(iterate.step_seconds for iterate in optimize(spec, self._model))
        self.throughput.observe(step_work(options, size, None), seconds)
        release_memory(self.device)
        self.memory = max(0, available_bytes(self.device) - self._styles.max_bytes)

    def join(self, job: Job, snapshot: Snapshot | None, sink: RunSink) -> None:
        """Have a job take its first turn after the step that is being taken.

        Args:
            job: the job.
            snapshot: where it goes on; None where it begins.
            sink: told what happens from Started on, in the worker's thread. What it is told last is the outcome: the
                picture, or that the job goes on elsewhere, or JobCancelledError (before its first picture, or
                abandoned), DoesNotFitError (out of memory) or JobFailedError.
        """
        self._arrivals.put(Run(job, snapshot, sink, self._model, self.throughput, styles=self._styles))

    def close(self) -> None:
        """Have the worker return after the step that is being taken, with nothing said of the jobs that are left."""
        self._arrivals.put(None)

    def serve(self) -> bool:
        """Run what joins, until closed or the device has failed, and return whether it still works."""
        while not self._has_failed:
            while not (self._runs and self._arrivals.empty()):
                arrival = self._arrivals.get()
                if arrival is None:
                    return True
                self._open(arrival)
            self._turn()
        for run in list(self._runs):
            self._end(run, Requeued(None, is_lost=True))
        return False

    def _open(self, run: Run) -> None:
        self._runs.append(run)
        self._share.join(run, weight(run.job.plan.expected_seconds))
        self._attempt(run, Run.start)

    def _turn(self) -> None:
        """Let go of the jobs that must not go on, and have one of the others take a step."""
        for run in list(self._runs):
            self._attempt(run, self._stop)
        if self._runs:
            run = self._share.next()
            self._attempt(run, self._step)

    def _stop(self, run: Run) -> Outcome | None:
        if run.job.control.must_leave:
            return Requeued(run.snapshot())
        stop_reason = run.reason_to_stop(self._wait(run))
        return run.finish(stop_reason) if stop_reason else None

    def _step(self, run: Run) -> None:
        started = time.perf_counter()
        run.step()
        run.report(self._eta(run))
        run.save()
        self._share.charge(run, time.perf_counter() - started)

    def _wait(self, run: Run) -> float:
        """Return the expected seconds until a job has its next turn, if nothing else comes."""
        seconds = 0.0
        for other in self._runs:
            if lead := self._share.lead(other, run):
                state = other.job.run
                # A step that has begun is done to its end.
                steps = math.ceil(lead / state.next_seconds) if state.next_seconds else 0
                seconds += min(steps * state.next_seconds, state.remaining_seconds)
        return seconds

    def _eta(self, run: Run) -> float:
        """Return the expected seconds until a job has taken its last step, if nothing else comes."""
        now = time.monotonic()
        return ends([each.job.claim(now) for each in self._runs])[self._runs.index(run)]

    def _attempt(self, run: Run, action: Callable[[Run], Outcome | None]) -> None:
        """Do something with a job and end it with what that returns or raises, so that it touches no other."""
        outcome: Outcome | None = None
        is_out_of_memory = False
        try:
            outcome = action(run)
        except Exception as error:
            is_out_of_memory = _is_out_of_memory(error)
            if not is_out_of_memory:
                outcome = self._failure(run, error)
        # Only now: the error holds what ran out of memory.
        if is_out_of_memory:
            outcome = self._shrink(run)
        if outcome:
            self._end(run, outcome)

    def _failure(self, run: Run, error: Exception) -> Outcome | None:
        """Return what becomes of a job after an error; None where it goes on."""
        job = run.job
        if isinstance(error, JobError):
            return error
        if isinstance(error, NonFiniteLossError):
            return JobFailedError("LOSS_NOT_FINITE", f"{error}; smaller weights may help")
        if isinstance(error, SnapshotError):
            _log.warning("job %s begins anew: its checkpoint %s", job.id, error)
            run.begin_anew()
            return None
        if isinstance(error, torch.AcceleratorError):
            _log.critical("device %s has failed, with job %s on it", self.device, job.id, exc_info=error)
            self._has_failed = True
            return Requeued(None, is_lost=True)
        _log.error("job %s failed", job.id, exc_info=error)
        return JobFailedError("INTERNAL", "internal error")

    def _shrink(self, run: Run) -> Outcome | None:
        """Have a job for which memory ran out go on with less; return what becomes of it where that cannot be."""
        job = run.job
        try:
            if run.shrink():
                tile_size, size = job.run.cost.tile_size, job.run.spec.content.size
                tiles = f"in tiles of {tile_size}" if tile_size else "as a whole"
                _log.warning("job %s goes on %s at %dx%d: memory ran out", job.id, tiles, *size)
                release_memory(self.device)
                return None
        except Exception as error:
            if not _is_out_of_memory(error):
                return self._failure(run, error)
        return does_not_fit(job.run.spec, job.run.cost.peak_bytes, self.capacity, share=0.5)

    def _end(self, run: Run, outcome: Outcome) -> None:
        self._runs.remove(run)
        self._share.leave(run)
        run.close()
        if not self._has_failed:
            release_memory(self.device)
        run.sink.leave(outcome)


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU allocator of torch has no exception of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
