"""Runs jobs on one device, one after the other, in one thread."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from importlib.metadata import version
from types import MappingProxyType

import torch

from nst_service.engine.devices import available_bytes, release_memory
from nst_service.engine.errors import NonFiniteLossError
from nst_service.engine.estimate import largest_size_within, step_flops
from nst_service.engine.metadata import describe
from nst_service.engine.options import DEFAULT_PRESET, KEEP_SIZE, OutputOptions, TransferOptions
from nst_service.engine.pictures import PREVIEW_MEDIA_TYPE, Picture, encode, preview
from nst_service.engine.spec import Style, TransferSpec
from nst_service.engine.transfer import Ending, Iterate, transfer
from nst_service.engine.vgg import Vgg19
from nst_service.jobs.errors import DoesNotFitError, JobCancelledError, JobFailedError
from nst_service.jobs.events import Completed, Event, Preview, Progress, ResultChunk, ResultHeader, Started, Timings
from nst_service.jobs.job import Job
from nst_service.jobs.pace import Pace
from nst_service.jobs.states import StopReason

CHUNK_BYTES = 2**20 - 2**10
"""Of the picture in one ResultChunk; its message stays below 1 MiB."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two Progress events of a job whose steps are faster than that."""

_STOP_REASONS = MappingProxyType(
    {
        Ending.ITERATIONS: StopReason.ITERATIONS,
        Ending.CONVERGED: StopReason.CONVERGED,
        Ending.TIME_BUDGET: StopReason.TIME_BUDGET,
    }
)

Publish = Callable[[Event], None]
"""Hands an event over to whoever follows the job."""


class DeviceWorker:
    """Runs jobs on one device. All methods but the constructor belong to the worker's thread."""

    def __init__(self, model: Vgg19):
        self.device = model.device
        self.pace = Pace()
        self.capacity = 0
        """Memory that a job can have, in bytes; known after the warm-up."""
        self._model = model

    def warm_up(self) -> None:
        """Run a few steps, so that the first job finds everything loaded and the pace of the device known."""
        size = (256, 192)
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
        for iterate in transfer(spec, self._model):
            if iterate.iteration > 1:
                self.pace.observe(step_flops(options, size, None), iterate.step_seconds)
        release_memory(self.device)
        self.capacity = available_bytes(self.device)

    def run(self, job: Job, publish: Publish) -> StopReason:
        """Run a job to its end and publish what happens, up to its Completed.

        Returns:
            Why it stopped.

        Raises:
            JobCancelledError: cancelled before its first picture, or abandoned.
            DoesNotFitError: the device ran out of memory.
            JobFailedError: the loss is not finite.
        """
        try:
            return _Run(job, publish, self._model, self.pace).run()
        except NonFiniteLossError as error:
            raise JobFailedError("LOSS_NOT_FINITE", f"{error}; smaller weights may help") from error
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            largest = largest_size_within(self.capacity // 2, job.spec.options, job.spec.content.size)
            raise DoesNotFitError(job.cost.peak_bytes, self.capacity, largest) from error
        finally:
            release_memory(self.device)


class _Run:
    """One run of one job."""

    def __init__(self, job: Job, publish: Publish, model: Vgg19, pace: Pace):
        self._job = job
        self._publish = publish
        self._model = model
        self._pace = pace
        self._started_at = time.monotonic()
        self._next_progress = 0.0

    def run(self) -> StopReason:
        queued = self._started_at - self._job.accepted_at
        self._publish(Started(device=str(self._model.device), queued_seconds=queued))
        with contextlib.closing(transfer(self._job.spec, self._model, self._job.cost.tile)) as iterates:
            for iterate in iterates:
                self._pace.observe(
                    step_flops(self._job.spec.options, iterate.size, self._job.cost.tile), iterate.step_seconds
                )
                self._job.expected_end = time.monotonic() + iterate.eta_seconds
                self._report(iterate)
                if stop_reason := self._reason_to_stop(iterate):
                    break
        if self._job.abandoned:
            raise JobCancelledError
        assert stop_reason, "the last iterate has an ending"
        self._finish(iterate, stop_reason, queued)
        return stop_reason

    def _report(self, iterate: Iterate) -> None:
        options = self._job.spec.options
        if iterate.seconds >= self._next_progress or iterate.is_last:
            self._next_progress = iterate.seconds + PROGRESS_INTERVAL
            self._publish(
                Progress(
                    scale=iterate.scale,
                    scales=iterate.scales,
                    iteration=iterate.iteration,
                    total_iterations=iterate.total_iterations,
                    total_loss=iterate.evaluation.loss,
                    terms=iterate.evaluation.term_values(),
                    elapsed_seconds=iterate.seconds,
                    eta_seconds=iterate.eta_seconds,
                )
            )
        if options.preview_every and iterate.iteration % options.preview_every == 0:
            small = preview(iterate.picture(), longest_edge=options.preview_size)
            self._publish(
                Preview(
                    iteration=iterate.iteration,
                    media_type=PREVIEW_MEDIA_TYPE,
                    width=small.width,
                    height=small.height,
                    data=small.data,
                )
            )

    def _reason_to_stop(self, iterate: Iterate) -> StopReason | None:
        if self._job.stop_requested:
            return self._job.stop_requested
        if iterate.ending:
            return _STOP_REASONS[iterate.ending]
        if self._job.deadline is None:
            return None
        # What is left must hold another step, and the encoding and sending of the picture.
        megapixels = self._job.spec.content.width * self._job.spec.content.height / 1e6
        needed = 1.5 * iterate.next_seconds + 0.25 + 0.5 * megapixels
        return StopReason.DEADLINE if self._job.deadline - time.monotonic() < needed else None

    def _finish(self, iterate: Iterate, stop_reason: StopReason, queued: float) -> None:
        content, output, best = self._job.spec.content, self._job.spec.output, iterate.best
        optimized_at = time.monotonic()
        data = encode(
            iterate.result(),
            format=output.format,
            quality=output.quality,
            bits=output.bits,
            alpha=content.alpha,
            description=describe(self._job.spec, self._model, version("nst-stylize")) if output.metadata else None,
        )
        encoded_at = time.monotonic()
        self._publish(
            ResultHeader(
                media_type=output.format.media_type,
                width=content.width,
                height=content.height,
                size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
        for offset in range(0, len(data), CHUNK_BYTES):
            self._publish(ResultChunk(offset=offset, data=memoryview(data)[offset : offset + CHUNK_BYTES]))
        self._publish(
            Completed(
                stop_reason=stop_reason,
                iterations=iterate.iteration,
                total_loss=best.loss,
                terms=best.term_values(),
                timings=Timings(
                    queued=queued,
                    targets=max(0.0, optimized_at - self._started_at - iterate.seconds),
                    optimize=iterate.seconds,
                    encode=encoded_at - optimized_at,
                ),
            )
        )


def _is_out_of_memory(error: Exception) -> bool:
    # The CPU allocator of torch has no exception of its own.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(error)
