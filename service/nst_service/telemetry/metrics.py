"""The metrics of a server for Prometheus. They come from the facts of jobs and calls, and from the present state."""

import contextlib
import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import CollectorRegistry

from nst_service.jobs.events import Completed, ResultHeader, Started
from nst_service.jobs.gauges import ServerGauges
from nst_service.jobs.job import Drained, End, Ended, Job, Moved, RequeueCause, Work
from nst_service.jobs.observer import (
    DeviceFailed,
    DeviceLost,
    DeviceReady,
    DeviceRemoved,
    Fact,
    JobAccepted,
    JobCheckpointed,
    JobEnded,
    JobRefused,
    JobRequeued,
    JobResumed,
    JobShrunk,
    JobStarted,
    RecoveryFailed,
    StoreCalled,
    StoreMeasured,
)
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.records import Usage
from nst_service.telemetry import catalogue
from nst_service.telemetry.calls import CallEnded
from nst_service.telemetry.catalogue import Kind, Metric
from nst_service.telemetry.certificates import expiries
from nst_service.telemetry.metrics_server import serving_metrics
from nst_service.telemetry.outage import Outage

_MAX_OWNERS = 1000
_OTHER = "other"
_NONE = "none"
_OF_DEVICES = (
    catalogue.ITERATIONS,
    catalogue.MEGAPIXEL_ITERATIONS,
    catalogue.TAKEN_BACK,
    catalogue.DEVICE_SECONDS,
    catalogue.DEVICE_LOSSES,
)
"""The counters of each device."""
_FAILURES = ("LOSS_NOT_FINITE", "REQUEST_LOST", "KEEPS_CRASHING", "INTERNAL")
"""The reasons of `JobFailedError`."""
_STREAMING = ("Stylize", "WatchJob", "Watch", "ServerReflectionInfo")
"""The methods whose calls last as long as their client wants."""
_KINDS: Mapping[Kind, type[MetricWrapperBase]] = {
    Kind.COUNTER: prometheus_client.Counter,
    Kind.GAUGE: prometheus_client.Gauge,
    Kind.HISTOGRAM: prometheus_client.Histogram,
}
_COUNTED: Mapping[type[Fact], Metric] = {
    JobAccepted: catalogue.ACCEPTED,
    JobResumed: catalogue.RESUMED,
    JobShrunk: catalogue.SHRUNK,
}
"""The facts that are counted and have no label."""


@dataclass
class _Running:
    """A job on a device."""

    device: str
    saved_at: float
    """Time of the last checkpoint, or of the start."""
    counted: Work = field(default_factory=Work)
    """The part of the work of the job that the counters have."""


class _Registry(CollectorRegistry):
    """A registry that brings its metrics up to date before each scrape."""

    def __init__(self, refresh: Callable[[], None]):
        super().__init__()
        self._refresh_metrics = refresh

    def collect(self) -> Iterator[prometheus_client.Metric]:
        self._refresh_metrics()
        yield from super().collect()


class ServerMetrics:
    """Counts the facts of a server. It is an observer of jobs and of calls, and its registry can be scraped.

    Facts come on the event loop, and scrapes in other threads.
    """

    def __init__(
        self,
        reason_of: Callable[[Exception], str],
        refusals_of_calls: frozenset[str] = frozenset(),
        *,
        has_owners: bool = False,
        certificates: Mapping[str, Path] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make the metrics of a server.

        Args:
            reason_of: returns the reason that the client gets with an error.
            refusals_of_calls: the reasons with which calls are refused before their request reaches the scheduler.
            has_owners: whether there are metrics of each owner.
            certificates: the files of certificates by the names of their settings.
            clock: returns seconds that never go back.
        """
        # Otherwise each series has a second one with the time at which it began.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry: CollectorRegistry = _Registry(self._refresh)
        self._reason_of = reason_of
        self._refusals_of_calls = refusals_of_calls
        self._has_owners = has_owners
        self._certificates = certificates or {}
        self._clock = clock
        self._metrics = {
            metric.name: _registered(metric, self.registry)
            for topic, metrics in catalogue.GROUPS
            if has_owners or topic != "Owners"
            for metric in metrics
        }
        prometheus_client.ProcessCollector(registry=self.registry)
        self._lock = threading.Lock()
        self._read_gauges: Callable[[], ServerGauges] | None = None
        self._running: dict[Job, _Running] = {}
        self._counted: dict[Job, Work] = {}
        """The work of jobs that have left a device and wait for another one."""
        self._owners: set[str] = set()
        self._outage = Outage()
        self._in_flight: Counter[str] = Counter()
        self._prepare()

    def describe(self, *, weights: str, max_queued: int, max_store_bytes: int, devices: Iterable[str]) -> None:
        """Set what does not change while the server runs.

        Args:
            weights: id of the weights.
            max_queued: the largest number of jobs that may wait.
            max_store_bytes: the largest size of the store in bytes.
            devices: names of the devices.
        """
        versions = {"version": version("nst-stylize"), "torch": version("torch"), "python": platform.python_version()}
        self._gauge(catalogue.BUILD, **versions).set(1)
        self._gauge(catalogue.WEIGHTS, weights=weights).set(1)
        self._gauge(catalogue.QUEUE_LIMIT).set(max_queued)
        self._gauge(catalogue.STORE_LIMIT).set(max_store_bytes)
        for device in devices:
            self._prepare_device(device)

    def serving(self, address: str) -> AbstractAsyncContextManager[int]:
        """Serve the metrics on an address, HOST:PORT, until the context ends; see `serving_metrics`."""
        return serving_metrics(address, self.registry)

    def watch(self, read_gauges: Callable[[], ServerGauges]) -> None:
        """Read the present state of the server with this function at each scrape. Any thread may call it."""
        self._read_gauges = read_gauges

    def notify(self, fact: Fact) -> None:
        """Count a fact."""
        with self._lock:
            if metric := _COUNTED.get(type(fact)):
                self._counter(metric).inc()
            else:
                self._count(fact)

    def begin_call(self, method: str) -> None:
        """Count a call that begins."""
        with self._lock:
            self._in_flight[method] += 1
            self._gauge(catalogue.CALLS_IN_FLIGHT, method=method).set(self._in_flight[method])

    def end_call(self, call: CallEnded) -> None:
        """Count a call that has ended."""
        with self._lock:
            self._counter(catalogue.CALLS, method=call.method, code=call.code.name).inc()
            if self._in_flight[call.method]:
                self._in_flight[call.method] -= 1
                self._gauge(catalogue.CALLS_IN_FLIGHT, method=call.method).set(self._in_flight[call.method])
                if call.method.rpartition("/")[2] not in _STREAMING:
                    self._histogram(catalogue.CALL_DURATION, method=call.method).observe(call.seconds)
            if call.reason in self._refusals_of_calls and not call.is_refusal_known:
                self._counter(catalogue.REFUSALS, reason=call.reason).inc()

    def _count(self, fact: Fact) -> None:
        match fact:
            case JobRefused(_, error):
                self._counter(catalogue.REFUSALS, reason=self._reason_of(error)).inc()
            case JobStarted(job, device):
                self._note_start(job, device)
            case JobCheckpointed(job, seconds):
                self._histogram(catalogue.CHECKPOINTS).observe(seconds)
                if running := self._running.get(job):
                    running.saved_at = self._clock()
            case JobRequeued(job, cause):
                self._counter(catalogue.REQUEUED, cause=cause.value).inc()
                if running := self._running.pop(job, None):
                    self._count_work(job, running)
                    self._counted[job] = running.counted
            case JobEnded(job, end):
                self._note_end(job, end)
            case RecoveryFailed(_, error):
                self._counter(catalogue.ENDED, state=JobState.FAILED.value, stop_reason=_NONE).inc()
                self._counter(catalogue.FAILURES, reason=self._reason_of(error)).inc()
            case DeviceReady() | DeviceRemoved() | DeviceLost() | DeviceFailed():
                self._note_device(fact)
            case StoreCalled():
                self._note_store(fact)
            case StoreMeasured(usage):
                self._note_usage(usage)
            case _:
                pass

    def _note_start(self, job: Job, device: str) -> None:
        self._running[job] = _Running(device, self._clock(), self._counted.pop(job, Work()))
        started = job.log.latest(Started)
        if started and job.plan.earlier_runs == 0:
            self._histogram(catalogue.QUEUE_SECONDS).observe(started.queued_seconds)

    def _note_end(self, job: Job, end: End) -> None:
        if running := self._running.pop(job, None):
            self._count_work(job, running)
        self._counted.pop(job, None)
        state, stop_reason = _state(end), _NONE
        if isinstance(end, Ended):
            stop_reason = end.stop_reason.value if end.stop_reason else _NONE
            self._histogram(catalogue.JOB_DURATION, state=state).observe(time.monotonic() - job.plan.accepted_at)
            if end.state is JobState.FAILED and end.error:
                self._counter(catalogue.FAILURES, reason=self._reason_of(end.error)).inc()
        self._counter(catalogue.ENDED, state=state, stop_reason=stop_reason).inc()
        if self._has_owners:
            self._counter(catalogue.OWNER_JOBS, owner=self._owner_label(job), state=state).inc()
        if header := job.log.latest(ResultHeader):
            self._counter(catalogue.RESULT_BYTES).inc(header.size_bytes)
        if completed := job.log.latest(Completed):
            self._note_completion(job, completed)

    def _note_completion(self, job: Job, completed: Completed) -> None:
        timings = completed.timings
        stages = {
            "decode": job.decoding_seconds,
            "targets": timings.targets,
            "optimize": timings.optimize,
            "encode": timings.encode,
        }
        for stage, seconds in stages.items():
            self._histogram(catalogue.STAGE_SECONDS, stage=stage).observe(seconds)
        is_whole = completed.stop_reason is StopReason.ITERATIONS and job.plan.earlier_runs == 0
        if is_whole and job.plan.expected_seconds > 0:
            ratio = job.run_state.work.device_seconds / job.plan.expected_seconds
            self._histogram(catalogue.ESTIMATE_RATIO).observe(ratio)

    def _note_store(self, call: StoreCalled) -> None:
        self._histogram(catalogue.STORE_SECONDS, operation=call.operation).observe(call.seconds)
        if call.error:
            kind = type(call.error).__name__
            self._counter(catalogue.STORE_ERRORS, operation=call.operation, error=kind).inc()
        self._outage.note(call, self._clock())

    def _note_usage(self, usage: Usage) -> None:
        self._gauge(catalogue.STORE_BYTES).set(usage.used_bytes)
        if usage.free_bytes is not None:
            self._gauge(catalogue.STORE_FREE).set(usage.free_bytes)

    def _refresh(self) -> None:
        """Bring up to date what no fact tells."""
        with self._lock:
            for job, running in self._running.items():
                self._count_work(job, running)
            now = self._clock()
            age = max((now - running.saved_at for running in self._running.values()), default=0.0)
            self._gauge(catalogue.CHECKPOINT_AGE).set(age)
            self._gauge(catalogue.STORE_UP).set(not self._outage.is_ongoing)
            for name, expires_at in expiries(self._certificates):
                self._gauge(catalogue.CERTIFICATE, file=name).set(expires_at)
            if self._read_gauges:
                self._set_gauges(self._read_gauges())

    def _set_gauges(self, gauges: ServerGauges) -> None:
        self._gauge(catalogue.SERVING).set(gauges.is_serving)
        self._gauge(catalogue.DRAINING).set(gauges.is_draining)
        self._gauge(catalogue.JOBS, state=JobState.QUEUED.value).set(gauges.waiting)
        self._gauge(catalogue.JOBS, state=JobState.RUNNING.value).set(sum(device.jobs for device in gauges.devices))
        self._gauge(catalogue.QUEUE_LENGTH).set(gauges.queue_length)
        self._gauge(catalogue.QUEUE_OLDEST).set(gauges.oldest_waiting_seconds)
        self._gauge(catalogue.FOLLOWERS).set(gauges.followers)
        for metric in (catalogue.DEVICE_UP, catalogue.DEVICE_JOBS, catalogue.DEVICE_MEMORY):
            self._metrics[metric.name].clear()
        for device in gauges.devices:
            name = device.name
            self._gauge(catalogue.DEVICE_UP, device=name).set(device.is_up)
            self._gauge(catalogue.DEVICE_JOBS, device=name).set(device.jobs)
            memory = {"available": device.available_bytes, "planned": device.planned_bytes, "used": device.used_bytes}
            for kind, size in memory.items():
                if size is not None:
                    self._gauge(catalogue.DEVICE_MEMORY, device=name, kind=kind).set(size)

    def _count_work(self, job: Job, running: _Running) -> None:
        """Count what a job has done on its device since it was counted last."""
        # Read once, because the worker may replace it at any time.
        work, before, device = job.run_state.work, running.counted, running.device
        running.counted = work
        megapixels = max(0.0, work.megapixel_iterations - before.megapixel_iterations)
        self._counter(catalogue.ITERATIONS, device=device).inc(max(0, work.iterations - before.iterations))
        self._counter(catalogue.MEGAPIXEL_ITERATIONS, device=device).inc(megapixels)
        self._counter(catalogue.TAKEN_BACK, device=device).inc(max(0, work.taken_back - before.taken_back))
        seconds = max(0.0, work.device_seconds - before.device_seconds)
        self._counter(catalogue.DEVICE_SECONDS, device=device).inc(seconds)
        if self._has_owners:
            self._counter(catalogue.OWNER_WORK, owner=self._owner_label(job)).inc(megapixels)

    def _owner_label(self, job: Job) -> str:
        if not job.owner:
            return _NONE
        if job.owner not in self._owners and len(self._owners) >= _MAX_OWNERS:
            return _OTHER
        self._owners.add(job.owner)
        return job.owner

    def _prepare(self) -> None:
        """Begin with 0, so that the first of its kind is an increase."""
        for state in (JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED):
            self._histogram(catalogue.JOB_DURATION, state=state.value)
        for stop_reason in StopReason:
            state = JobState.CANCELLED if stop_reason is StopReason.CANCELLED else JobState.SUCCEEDED
            self._counter(catalogue.ENDED, state=state.value, stop_reason=stop_reason.value)
        self._counter(catalogue.ENDED, state=JobState.FAILED.value, stop_reason=_NONE)
        for cause in RequeueCause:
            self._counter(catalogue.REQUEUED, cause=cause.value)
        for reason in _FAILURES:
            self._counter(catalogue.FAILURES, reason=reason)
        for reason in self._refusals_of_calls:
            self._counter(catalogue.REFUSALS, reason=reason)
        for stage in ("decode", "targets", "optimize", "encode"):
            self._histogram(catalogue.STAGE_SECONDS, stage=stage)

    def _prepare_device(self, device: str) -> None:
        for metric in _OF_DEVICES:
            self._counter(metric, device=device)

    def _note_device(self, fact: DeviceReady | DeviceRemoved | DeviceLost | DeviceFailed) -> None:
        match fact:
            case DeviceReady(device):
                self._prepare_device(device)
            case DeviceRemoved(device):
                self._note_removal(device)
            case DeviceLost(device, _) | DeviceFailed(device):
                self._counter(catalogue.DEVICE_LOSSES, device=device).inc()

    def _note_removal(self, device: str) -> None:
        self._counter(catalogue.DEVICE_REMOVALS).inc()
        # Devices that come and go have new names each time, which must not add up.
        for metric in _OF_DEVICES:
            with contextlib.suppress(KeyError):
                self._metrics[metric.name].remove(device)

    def _counter(self, metric: Metric, **labels: str) -> prometheus_client.Counter:
        counter: prometheus_client.Counter = self._child(metric, labels)
        return counter

    def _gauge(self, metric: Metric, **labels: str) -> prometheus_client.Gauge:
        gauge: prometheus_client.Gauge = self._child(metric, labels)
        return gauge

    def _histogram(self, metric: Metric, **labels: str) -> prometheus_client.Histogram:
        histogram: prometheus_client.Histogram = self._child(metric, labels)
        return histogram

    def _child(self, metric: Metric, labels: Mapping[str, str]) -> Any:
        parent = self._metrics[metric.name]
        return parent.labels(**labels) if labels else parent


def _registered(metric: Metric, registry: CollectorRegistry) -> MetricWrapperBase:
    options: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
    return _KINDS[metric.kind](metric.name, metric.meaning, metric.labels, registry=registry, **options)


def _state(end: End) -> str:
    match end:
        case Ended(state):
            return state.value
        case Moved():
            return "moved"
        case Drained():
            return "drained"
