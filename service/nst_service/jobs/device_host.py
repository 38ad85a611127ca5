"""The far side of a remote device: it runs jobs on a device of its own process for a server elsewhere.

It knows nothing of how messages travel. Any thread may call its methods, one call of each at a time.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from nst_service.engine.optim.snapshot import SerializedSnapshot, Snapshot
from nst_service.jobs.device import Device
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Event, JobResult, Preparing, Preview, Progress, Reduced, Started
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.sink import Outcome, Requeued
from nst_service.jobs.wire import (
    Control,
    Failure,
    ImageQuery,
    Message,
    MissingImages,
    Packer,
    Poll,
    Reply,
    Report,
    Requeue,
    RunOrder,
    SentImage,
    Shrinking,
    Unpacker,
    spec_from,
)

_EVENT_FIELDS: Mapping[type[Event], str] = {
    Started: "started",
    Preparing: "preparing",
    Progress: "progress",
    Preview: "preview",
}
"""The field of a report for each event that a run publishes."""


class DeviceHost:
    """Serves a remote device with a device of this process, whose `serve` runs in another thread."""

    def __init__(self, device: Device, image_cache_bytes: int):
        """Make a host.

        Args:
            device: the device, which is warm.
            image_cache_bytes: size of the cache for decoded pictures in bytes: the pictures of the jobs that came last
                need not be sent again.
        """
        self._device = device
        self._images = ImageCache(image_cache_bytes)
        self._runs: dict[str, _HostedRun] = {}
        self._outbox = Outbox()
        self.polled_at = time.monotonic()
        """Time of the last poll, on the clock of `time.monotonic`. A server that is there polls all the time."""

    def missing(self, message: Message) -> Message:
        """Return which images are not known from earlier jobs.

        Raises:
            WireError: the message is not one of this release.
        """
        names = Unpacker().read(ImageQuery, message).images
        known = self._images.find(names)
        return Packer().message(MissingImages(images=tuple(name for name in names if name not in known)))

    def run(self, message: Message) -> Message:
        """Add a job, unless images are missing that are neither sent along nor known from earlier jobs.

        Raises:
            WireError: the message is not one of this release.
        """
        order = Unpacker(message.buffers).read(RunOrder, message)
        self._images.add(order.sent)
        images = self._images.find(order.images)
        if len(images) < len(order.images):
            return Packer().message(MissingImages(images=tuple(order.images)))
        spec = spec_from(order.spec, images)
        now = time.monotonic()
        job = Job(
            plan=JobPlan(
                id=order.job_id,
                accepted_at=now - order.accepted_ago,
                deadline=None if order.deadline_in is None else now + order.deadline_in,
                expected_seconds=order.expected_seconds,
            ),
            run_state=RunState(
                outline=order.outline, cost=order.cost, remaining_seconds=order.remaining_seconds, work=order.work
            ),
        )
        snapshot = Snapshot.from_bytes(b"".join(order.snapshot)) if order.snapshot else None
        run = _HostedRun(job, self._outbox)
        self._runs[job.id] = run
        self._device.join(job, spec, snapshot, run)
        return Packer().message(MissingImages(images=()))

    def control(self, message: Message) -> Message:
        """Pass the requests to the run of a job on. A run that has ended needs none.

        Raises:
            WireError: the message is not one of this release.
        """
        control = Unpacker().read(Control, message)
        if run := self._runs.get(control.job_id):
            run.control(control)
            if run.has_ended:
                del self._runs[control.job_id]
        return Message(b"null")

    def poll(self, message: Message) -> Message:
        """Return the reports since the last poll, as soon as there are any.

        Raises:
            WireError: the message is not one of this release.
        """
        poll = Unpacker().read(Poll, message)
        self.polled_at = time.monotonic()
        reports = self._outbox.take(poll.wait_seconds)
        self.polled_at = time.monotonic()
        for job_id in [job_id for job_id, run in self._runs.items() if run.has_ended]:
            self._runs.pop(job_id, None)
        return Packer().message(
            Reply(reports=tuple(reports), seconds_per_operation=self._device.throughput.seconds_per_operation)
        )


class Outbox:
    """The reports that wait for the next poll. Any thread may use it."""

    def __init__(self) -> None:
        self._reports: deque[Report] = deque()
        self._changed = threading.Condition()

    def put(self, report: Report) -> None:
        """Add a report."""
        with self._changed:
            self._reports.append(report)
            self._changed.notify()

    def take(self, wait_seconds: float) -> list[Report]:
        """Return all reports, and wait for one if there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._reports, wait_seconds)
            reports = list(self._reports)
            self._reports.clear()
        return reports


@dataclass(eq=False)
class _HostedRun:
    """The run of a job for a server elsewhere. It implements `RunSink`."""

    job: Job
    outbox: Outbox
    has_ended: bool = False
    _stored: int = 0
    """The number of reductions that the store of the server has."""
    _shrunk: int = 0
    """The number of reductions that the run has reported."""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def control(self, control: Control) -> None:
        """Take the requests of the server."""
        requests = self.job.control
        requests.stop_requested = control.stop_requested
        requests.must_leave = control.must_leave
        requests.is_abandoned = control.is_abandoned
        if control.checkpoint_in is not None:
            requests.next_checkpoint = time.monotonic() + control.checkpoint_in
        with self._changed:
            self._stored = max(self._stored, control.reductions_stored)
            self._changed.notify()

    def publish(self, event: Event) -> None:
        """Report an event."""
        self._report(**{_EVENT_FIELDS[type(event)]: event})

    def shrunk(self, reduced: Reduced | None) -> None:
        """Report that the job goes on with less memory, and wait until the server has stored its smaller size."""
        state = self.job.run_state
        self._report(shrinking=Shrinking(outline=state.outline, cost=state.cost, reduced=reduced))
        if reduced:
            self._shrunk += 1
            with self._changed:
                # A server that is gone takes this process with it.
                self._changed.wait_for(lambda: self._stored >= self._shrunk)

    def save(self, snapshot: Snapshot | SerializedSnapshot) -> None:
        """Report a snapshot to be stored."""
        self._report(checkpoint=tuple(snapshot.to_buffers()))

    def leave(self, outcome: Outcome) -> None:
        """Report the outcome."""
        match outcome:
            case JobResult():
                self._report(result=outcome)
            case Requeued(snapshot, is_lost):
                buffers = None if snapshot is None else tuple(snapshot.to_buffers())
                self._report(requeue=Requeue(snapshot=buffers, is_lost=is_lost))
            case JobError():
                self._report(failure=Failure.of(outcome))
        self.has_ended = True

    def _report(self, **content: Any) -> None:
        state = self.job.run_state
        self.outbox.put(
            Report(
                job_id=self.job.id,
                remaining_seconds=state.remaining_seconds,
                next_seconds=state.next_seconds,
                work=state.work,
                **content,
            )
        )


class ImageCache:
    """Keeps the images that were used last, up to a number of bytes beside those of the last job, by their SHA-256."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._images: OrderedDict[str, Image.Image] = OrderedDict()

    def add(self, sent: Iterable[SentImage]) -> None:
        """Add images. Those that were not used for the longest time make room for later ones."""
        while self._images and sum(map(_bytes_of, self._images.values())) > self._max_bytes:
            self._images.popitem(last=False)
        self._images.update({each.sha256: each.to_image() for each in sent})

    def find(self, names: Iterable[str]) -> Mapping[str, Image.Image]:
        """Return those of some images that are known."""
        found = {name: self._images[name] for name in names if name in self._images}
        for name in found:
            self._images.move_to_end(name)
        return found


def _bytes_of(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
