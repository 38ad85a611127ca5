"""The worker of a device of this process. It runs several jobs in one thread, which take turns of one step each."""

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
from nst_service.engine.network.precision import is_gpu
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
    """A device of this process (see `Device`). Its jobs share nothing except the device.

    Any thread may call `join` and `close`. Everything else except the constructor belongs to the thread of the worker.
    """

    def __init__(self, model: Vgg19, max_job_bytes: int = 0, style_cache_bytes: int = 0, memory_bytes: int = 0):
        """Make the worker of the device of a model.

        Args:
            model: the network.
            max_job_bytes: the most memory that a job can have, in bytes; 0 for the whole memory of the device.
            style_cache_bytes: size of the cache for the statistics of styles, in bytes.
            memory_bytes: memory of this process for jobs in bytes, which limits a device that computes in it; 0 for
                no limit.
        """
        self.device = model.device
        self.throughput = Throughput()
        self.memory = 0
        """Bytes that all jobs can have together; 0 before the warm-up."""
        self._model = model
        self._max_job_bytes = max_job_bytes
        self._memory_bytes = 0 if is_gpu(model.device) else memory_bytes
        self._styles = StyleCache(style_cache_bytes)
        self._arrivals: SimpleQueue[Run | None] = SimpleQueue()
        self._runs: list[Run] = []
        self._turns: FairQueue[Run] = FairQueue()
        self._has_failed = False

    @property
    def name(self) -> str:
        """The name of the device: "cpu" or "cuda:0"."""
        return str(self.device)

    @property
    def is_restartable(self) -> bool:
        """Whether the device can be warmed up again after a failure. A failed context of a GPU stays in its process."""
        return False

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network, in order."""
        return self._model.layers

    @property
    def capacity(self) -> Memory:
        """The memory that a job can have."""
        limits = {"": self.memory, "max_job_bytes": self._max_job_bytes, "memory_bytes": self._limited_memory()}
        limit, available = min(
            ((name, size) for name, size in limits.items() if size or not name), key=lambda pair: pair[1]
        )
        return Memory(available, self._model.backend, holds_pictures=not is_gpu(self.device), limit=limit)

    def _limited_memory(self) -> int:
        """Return the memory in bytes that the settings leave to all jobs; 0 for no limit."""
        return self._memory_bytes and max(1, self._memory_bytes - self._styles.max_bytes)

    def warm_up(self) -> None:
        """Run a few steps, which load everything that the first job needs and measure the throughput of the device."""
        size = Size(256, 192)
        picture = Picture.blank(size)
        # The layers that most jobs use, if the weights have them.
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
        # The first steps are slow.
        seconds = min(iterate.step_seconds for iterate in optimize(spec, self._model))
        self.throughput.observe(step_work(options, size, None), seconds)
        release_memory(self.device)
        self.memory = max(0, available_bytes(self.device) - self._styles.max_bytes)
        if limited := self._limited_memory():
            self.memory = min(self.memory, limited)

    def join(self, job: Job, spec: TransferSpec, snapshot: Snapshot | None, sink: RunSink) -> None:
        """Add a job. Its first turn is after the present step of another job.

        Args:
            job: the job.
            spec: its specification, with the sizes of its `run_state`.
            snapshot: the snapshot to go on from; None to start from the beginning.
            sink: takes the reports of the run, from Started to the outcome, in the thread of the worker. The outcome is
                the picture, Requeued, JobCancelledError (cancelled before the first picture, or abandoned),
                DoesNotFitError (out of memory) or JobFailedError.
        """
        self._arrivals.put(Run(job, spec, sink, self._model, self.throughput, snapshot=snapshot, styles=self._styles))

    def close(self) -> None:
        """Make `serve` return after the present step. The remaining jobs report no outcome."""
        self._arrivals.put(None)

    def serve(self) -> bool:
        """Run the jobs that join, until the worker is closed or the device fails. Return whether the device works."""
        try:
            while not self._has_failed:
                while not (self._runs and self._arrivals.empty()):
                    if not self._receive():
                        return True
                self._turn()
        except Exception:
            _log.critical("the worker of device %s has died", self.device, exc_info=True)
            self._has_failed = True
        for run in list(self._runs):
            self._end(run, Requeued(None, is_lost=True))
        return False

    def _receive(self) -> bool:
        """Wait for the next job and begin its run. Return False if the worker is closed instead."""
        run = self._arrivals.get()
        if run is None:
            return False
        self._runs.append(run)
        self._turns.join(run, weight(run.job.plan.expected_seconds))
        self._attempt(run, Run.start)
        return True

    def _turn(self) -> None:
        """End the jobs that must not go on, and let one of the others take a step."""
        for run in list(self._runs):
            self._attempt(run, self._stop)
        if self._runs:
            run = self._turns.next()
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
        self._turns.charge(run, time.perf_counter() - started)

    def _wait(self, run: Run) -> float:
        """Return the expected seconds until the next turn of a job, if no other job joins."""
        seconds = 0.0
        for other in self._runs:
            if lead := self._turns.lead(other, run):
                state = other.job.run_state
                # Nothing interrupts a step.
                steps = math.ceil(lead / state.next_seconds) if state.next_seconds else 0
                seconds += min(steps * state.next_seconds, state.remaining_seconds)
        return seconds

    def _eta(self, run: Run) -> float:
        """Return the expected seconds until the last step of a job, if no other job joins."""
        now = time.monotonic()
        return ends([each.job.claim(now) for each in self._runs])[self._runs.index(run)]

    def _attempt(self, run: Run, action: Callable[[Run], Outcome | None]) -> None:
        """Call an action on a run, and end the run with the outcome or the error. Other runs are not affected."""
        outcome: Outcome | None = None
        is_out_of_memory = False
        try:
            outcome = action(run)
        except Exception as error:
            is_out_of_memory = _is_out_of_memory(error)
            if not is_out_of_memory:
                outcome = self._failure(run, error)
        # Not in the handler, because the error holds the tensors of the failed step.
        if is_out_of_memory:
            outcome = self._shrink(run)
        if outcome:
            self._end(run, outcome)

    def _failure(self, run: Run, error: Exception) -> Outcome | None:
        """Return the outcome of a job after an error; None if the job goes on."""
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
        """Let a job that ran out of memory go on with less. Return its outcome if that is impossible, else None."""
        job = run.job
        try:
            if run.shrink():
                tile_size, size = job.run_state.cost.tile_size, job.run_state.outline.size
                tiles = f"in tiles of {tile_size}" if tile_size else "as a whole"
                _log.warning("job %s goes on %s at %dx%d: memory ran out", job.id, tiles, *size)
                release_memory(self.device)
                return None
        except Exception as error:
            if not _is_out_of_memory(error):
                return self._failure(run, error)
        return does_not_fit(job.run_state.outline, job.run_state.cost.peak_bytes, self.capacity, share=0.5)

    def _end(self, run: Run, outcome: Outcome) -> None:
        self._runs.remove(run)
        self._turns.leave(run)
        run.close()
        if not self._has_failed:
            release_memory(self.device)
        run.sink.leave(outcome)


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU allocator of torch has no exception of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
