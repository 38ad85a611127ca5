"""A device in another process, perhaps on another machine. It can be lost, and is then started again.

This module knows nothing of how processes are started and messages travel: see `Link`.
"""

import dataclasses
import functools
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from nst_service.engine.memory.fit import Memory
from nst_service.engine.network.backend import Backend
from nst_service.engine.optim.snapshot import SerializedSnapshot, Snapshot
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.device import DeviceUnavailableError
from nst_service.jobs.events import Started
from nst_service.jobs.job import Job
from nst_service.jobs.sink import Outcome, Requeued, RunSink
from nst_service.jobs.throughput import Throughput
from nst_service.jobs.wire import (
    Control,
    Description,
    ImageQuery,
    Kind,
    Message,
    MissingImages,
    Packer,
    Poll,
    Reply,
    Report,
    RunOrder,
    SentImage,
    Shrinking,
    Unpacker,
    WireError,
    spec_document,
)

_POLL_SECONDS = 1.0
"""Seconds after which a device that has nothing to report answers a poll."""
_PATIENCE_SECONDS = 10.0
"""Seconds after which the log tells that a device is waited for."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Link(Protocol):
    """A connection to the process of a device. Every call that fails means that the process is lost."""

    @property
    def place(self) -> str:
        """Where the process is to run, for the log."""

    def release(self) -> "Future[str]":
        """Return the release of nst in the process, as soon as the process runs."""

    def describe(self) -> "Future[Message]":
        """Warm up the device, and return its Description."""

    def call(self, method: str, message: Message) -> "Future[Message]":
        """Call a method of the `DeviceHost` of the process."""

    def close(self) -> None:
        """End the process at once. Calls that wait fail. This may be called several times."""


class DeviceKinds:
    """The kind of the devices of a server. All must be alike, so that equal requests have equal results."""

    def __init__(self, release: str, weights_sha256: str):
        """Make the kind of a server.

        Args:
            release: the version of nst on the server.
            weights_sha256: the SHA-256 of its weights.
        """
        self._release = release
        self._weights_sha256 = weights_sha256
        self._first: Kind | None = None
        self._lock = threading.Lock()

    def check_release(self, release: str) -> None:
        """Return if a process runs the release of the server.

        Raises:
            DeviceUnavailableError: it runs another one.
        """
        if release != self._release:
            raise DeviceUnavailableError(
                f"it runs release {release} of nst, and this server runs {self._release}; install the same on both"
            )

    def check(self, kind: Kind) -> None:
        """Return if a device is like the first one.

        Raises:
            DeviceUnavailableError: it would give other results.
        """
        if kind.weights_sha256 != self._weights_sha256:
            raise DeviceUnavailableError(
                f"its weights have the SHA-256 {kind.weights_sha256}, and those of this server {self._weights_sha256}"
            )
        with self._lock:
            self._first = self._first or kind
            if difference := kind.difference(self._first):
                raise DeviceUnavailableError(f"it would give other results than the first device: {difference}")


@dataclass(eq=False)
class _RemoteRun:
    """A job that runs on the device, or is about to."""

    job: Job
    sink: RunSink
    document: str
    """The specification, as `spec_document` returns it."""
    images: dict[str, SentImage]
    """The images of the specification by their SHA-256."""
    snapshot: tuple[memoryview, ...] | None
    has_joined: bool = False
    checkpoint: float = math.inf
    """The `JobControl.next_checkpoint` that was sent last."""
    reductions_stored: int = 0


@dataclass(frozen=True, slots=True)
class _Arrival:
    job: Job
    spec: TransferSpec
    snapshot: Snapshot | None
    sink: RunSink


class _LostError(Exception):
    """The process is lost, for the reason in the message."""


class RemoteDevice:
    """A device in another process (see `Device`).

    Its thread waits for one queue: jobs that arrive, requests of the event loop, and answers of the process. A process
    that does not answer a poll in time is lost, whether it has died, hangs or cannot be reached.
    """

    is_restartable = True

    def __init__(
        self, name: str, start: Callable[[], Link], kinds: DeviceKinds, timeout_seconds: float, max_job_bytes: int = 0
    ):
        """Make a device, whose process is started by `warm_up`.

        Args:
            name: the name of the device.
            start: starts a process. The link is returned at once.
            kinds: checks that the device is like the others of the server.
            timeout_seconds: seconds beyond those of a poll after which a process that does not answer is lost.
            max_job_bytes: the most memory that a job can have, in bytes; 0 for the whole memory of the device.
        """
        self.name = name
        self.throughput = Throughput()
        self._start = start
        self._kinds = kinds
        self._timeout = timeout_seconds
        self._max_job_bytes = max_job_bytes
        self._description: Description | None = None
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._is_serving = self._is_closed = False
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        """What the thread of the device is to do, in order."""
        self._runs: dict[str, _RemoteRun] = {}
        self._orders: list[Callable[[], None]] = []
        """The calls that wait for the answer to the one before them, so that they arrive in order."""
        self._is_ordering = False
        self._poll_ends = math.inf

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of the network, in order; none before the first warm-up."""
        return self._description.layers if self._description else ()

    @property
    def memory(self) -> int:
        """Bytes that all jobs can have together; 0 before the first warm-up."""
        return self._description.memory if self._description else 0

    @property
    def capacity(self) -> Memory:
        """The memory that a job can have."""
        backend = Backend(self._description.kind.backend) if self._description else Backend.TORCH
        return Memory(min(self.memory, self._max_job_bytes or self.memory), backend)

    def warm_up(self) -> None:
        """Start the process, and wait until its device is warm.

        Raises:
            DeviceUnavailableError: the process ends, or is not like this server and its other devices.
        """
        with self._lock:
            if self._is_closed:
                raise DeviceUnavailableError("it is closed")
            link = self._link = self._start()
        try:
            self._kinds.check_release(self._answer(link.release(), f"{link.place} to start"))
            description = Unpacker().read(Description, self._answer(link.describe(), f"{link.place} to warm up"))
            self._kinds.check(description.kind)
        except (DeviceUnavailableError, WireError) as error:
            link.close()
            raise DeviceUnavailableError(str(error)) from error
        self._description = description
        self.throughput = Throughput(description.seconds_per_operation)
        _log.info("device %s is %s of %s", self.name, description.device, description.place)
        with self._lock:
            self._is_serving = True

    def _answer(self, future: "Future[_T]", what: str) -> _T:
        """Wait for an answer of a process that starts, which takes as long as the cluster needs to place it."""
        begun = time.monotonic()
        has_told = False
        while True:
            try:
                return future.result(timeout=1.0)
            except FutureTimeoutError:
                if not has_told and time.monotonic() - begun > _PATIENCE_SECONDS:
                    has_told = True
                    _log.warning("device %s waits for %s", self.name, what)
            except (CancelledError, Exception) as error:
                raise DeviceUnavailableError(_reason(error)) from error

    def join(self, job: Job, spec: TransferSpec, snapshot: Snapshot | None, sink: RunSink) -> None:
        """Add a job (see `Device.join`)."""
        arrival = _Arrival(job, spec, snapshot, sink)
        with self._lock:
            if self._is_serving:
                self._inbox.put(functools.partial(self._receive, arrival))
                return
        # The device was lost after the job got its place.
        sink.leave(Requeued(None))

    def close(self) -> None:
        """End the process. The remaining jobs report no outcome."""
        with self._lock:
            self._is_closed = True
            link = self._link
        self._inbox.put(lambda: None)
        if link:
            link.close()

    def serve(self) -> bool:
        """Run the jobs that join, until the device is closed or lost. Return whether it works."""
        try:
            self._poll()
            while not self._is_closed:
                try:
                    work = self._inbox.get(timeout=max(0.0, self._poll_ends - time.monotonic()))
                except Empty:
                    raise _LostError(f"it has not answered for {_POLL_SECONDS + self._timeout:g} s") from None
                work()
            return True
        except _LostError as error:
            reason = str(error)
        except Exception:
            _log.exception("device %s has sent what cannot be understood", self.name)
            reason = "what it has sent cannot be understood"
        return self._end(reason)

    def _end(self, reason: str) -> bool:
        """Let every job leave a device that is lost; return whether it has been closed instead."""
        if self._is_closed:
            return True
        _log.error("device %s is lost with %d jobs: %s", self.name, len(self._runs), reason)
        with self._lock:
            self._is_serving = False
            link, self._link = self._link, None
        if link:
            link.close()
        runs = list(self._runs.values())
        self._runs.clear()
        # Jobs that have arrived since.
        self._orders.clear()
        self._is_ordering, self._poll_ends = False, math.inf
        waiting = self._inbox
        self._inbox = SimpleQueue()
        while not waiting.empty():
            work = waiting.get()
            if isinstance(work, functools.partial) and isinstance(work.args[0], _Arrival):
                work.args[0].sink.leave(Requeued(None))
        for run in runs:
            run.job.control.listener = None
            run.sink.leave(Requeued(None, is_lost=True))
        return False

    # In the thread of the device

    def _poll(self) -> None:
        assert self._link
        self._poll_ends = time.monotonic() + _POLL_SECONDS + self._timeout
        self._send("poll", Packer().message(Poll(wait_seconds=_POLL_SECONDS)), self._read_reply)

    def _send(self, method: str, message: Message, then: Callable[[Message], None]) -> None:
        """Call a method of the process, and let the thread handle the answer."""
        assert self._link
        inbox = self._inbox
        future = self._link.call(method, message)
        future.add_done_callback(lambda done: inbox.put(functools.partial(self._handle, done, then)))

    @staticmethod
    def _handle(done: "Future[Message]", then: Callable[[Message], None]) -> None:
        try:
            answer = done.result()
        except (CancelledError, Exception) as error:
            raise _LostError(_reason(error)) from error
        then(answer)

    def _order(self, send: Callable[[], None]) -> None:
        """Send a message after the process has answered those before it."""
        self._orders.append(send)
        self._send_next_order()

    def _send_next_order(self) -> None:
        if self._orders and not self._is_ordering:
            self._is_ordering = True
            self._orders.pop(0)()

    def _note_answer(self) -> None:
        self._is_ordering = False
        self._send_next_order()

    def _receive(self, arrival: _Arrival) -> None:
        document, images = spec_document(arrival.spec)
        run = _RemoteRun(
            job=arrival.job,
            sink=arrival.sink,
            document=document,
            images={name: SentImage.of(name, image) for name, image in images.items()},
            snapshot=tuple(arrival.snapshot.to_buffers()) if arrival.snapshot else None,
        )
        self._runs[run.job.id] = run
        inbox = self._inbox
        run.job.control.listener = lambda: inbox.put(functools.partial(self._control, run))
        self._order(functools.partial(self._send_query, run))

    def _send_query(self, run: _RemoteRun) -> None:
        query = ImageQuery(images=tuple(run.images))
        self._send("missing", Packer().message(query), functools.partial(self._read_missing, run))

    def _read_missing(self, run: _RemoteRun, message: Message) -> None:
        self._send_order(run, Unpacker().read(MissingImages, message).images)

    def _send_order(self, run: _RemoteRun, missing: Sequence[str]) -> None:
        plan, state, now = run.job.plan, run.job.run_state, time.monotonic()
        order = RunOrder(
            job_id=run.job.id,
            spec=run.document,
            images=tuple(run.images),
            sent=tuple(run.images[name] for name in missing),
            outline=state.outline,
            cost=state.cost,
            work=state.work,
            remaining_seconds=state.remaining_seconds,
            accepted_ago=now - plan.accepted_at,
            deadline_in=None if plan.deadline is None else plan.deadline - now,
            expected_seconds=plan.expected_seconds,
            snapshot=run.snapshot,
        )
        self._send("run", Packer().message(order), functools.partial(self._read_run_answer, run))

    def _read_run_answer(self, run: _RemoteRun, message: Message) -> None:
        if missing := Unpacker().read(MissingImages, message).images:
            # Other jobs have taken their place in the cache since.
            self._send_order(run, missing)
            return
        run.has_joined, run.snapshot = True, None
        run.images.clear()
        self._note_answer()
        self._control(run)

    def _control(self, run: _RemoteRun) -> None:
        """Send the present requests to a run. What has changed before it has joined is sent then."""
        if run.has_joined and run.job.id in self._runs:
            self._order(functools.partial(self._send_control, run))

    def _send_control(self, run: _RemoteRun) -> None:
        control, checkpoint_in = run.job.control, None
        if control.next_checkpoint != run.checkpoint:
            run.checkpoint = control.next_checkpoint
            checkpoint_in = max(0.0, run.checkpoint - time.monotonic())
        message = Control(
            job_id=run.job.id,
            stop_requested=control.stop_requested,
            must_leave=control.must_leave,
            is_abandoned=control.is_abandoned,
            checkpoint_in=checkpoint_in,
            reductions_stored=run.reductions_stored,
        )
        self._send("control", Packer().message(message), lambda _: self._note_answer())

    def _read_reply(self, message: Message) -> None:
        reply = Unpacker(message.buffers).read(Reply, message)
        if reply.seconds_per_operation:
            self.throughput = Throughput(reply.seconds_per_operation)
        is_lost = False
        for report in reply.reports:
            if run := self._runs.get(report.job_id):
                self._read_report(run, report)
            is_lost = is_lost or (report.requeue is not None and report.requeue.is_lost)
        if is_lost:
            raise _LostError("it has failed")
        self._poll()

    def _read_report(self, run: _RemoteRun, report: Report) -> None:
        run.job.run_state = dataclasses.replace(
            run.job.run_state,
            remaining_seconds=report.remaining_seconds,
            next_seconds=report.next_seconds,
            work=report.work,
        )
        if report.started:
            # Its own name tells nothing outside of its process.
            run.sink.publish(Started(device=self.name, queued_seconds=report.started.queued_seconds))
        for event in (report.preparing, report.progress, report.preview):
            if event:
                run.sink.publish(event)
        if report.shrinking:
            self._shrink(run, report.shrinking)
        if report.checkpoint is not None:
            run.sink.save(SerializedSnapshot(report.checkpoint))
        if outcome := _outcome(report):
            del self._runs[run.job.id]
            run.job.control.listener = None
            run.sink.leave(outcome)

    def _shrink(self, run: _RemoteRun, shrinking: Shrinking) -> None:
        run.job.run_state = dataclasses.replace(run.job.run_state, outline=shrinking.outline, cost=shrinking.cost)
        if not shrinking.reduced:
            run.sink.shrunk(None)
            return
        inbox = self._inbox

        def report() -> None:
            # This waits for the store.
            run.sink.shrunk(shrinking.reduced)
            inbox.put(functools.partial(self._note_stored, run))

        threading.Thread(target=report, name=f"nst-{self.name}-shrunk", daemon=True).start()

    def _note_stored(self, run: _RemoteRun) -> None:
        run.reductions_stored += 1
        self._control(run)


def _outcome(report: Report) -> Outcome | None:
    """Return the outcome in a report; None if the run goes on."""
    if report.result:
        return report.result
    if report.failure:
        return report.failure.to_error()
    if requeue := report.requeue:
        snapshot = None if requeue.snapshot is None else SerializedSnapshot(requeue.snapshot)
        return Requeued(snapshot, is_lost=requeue.is_lost)
    return None


def _reason(error: BaseException) -> str:
    """Return the first line of an error, or its type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
