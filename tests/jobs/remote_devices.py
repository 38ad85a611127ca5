"""Remote devices in this process: links to hosts in other threads, which a test can break in every way."""

import functools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from nst_service.engine.network.vgg import Vgg19
from nst_service.jobs.device import Device
from nst_service.jobs.device_host import DeviceHost
from nst_service.jobs.remote import DeviceKinds, RemoteDevice
from nst_service.jobs.wire import Description, Kind, Message, Packer
from nst_service.jobs.worker import DeviceWorker

RELEASE, WEIGHTS = "1.0", "weights"
KIND = Kind(
    release=RELEASE, torch="2", weights_sha256=WEIGHTS, processor="AVX", backend="torch", precision="float32", threads=1
)


class LinkBrokenError(Exception):
    """The process of a device is gone."""


@dataclass
class FakeLink:
    """A link to a host whose calls run in threads of their own."""

    device: Device
    kind: Kind = KIND
    process_release: str = RELEASE
    place: str = "a thread"
    sizes: list[tuple[str, int]] = field(default_factory=list)
    """The method and the total size of the buffers of each call."""
    is_hung: bool = False
    """Whether calls are never answered, as by a process that was stopped."""

    def __post_init__(self) -> None:
        self.is_closed = False
        self.open: list[Future[Any]] = []
        self.host = DeviceHost(self.device, 2**20)

    def calls(self, method: str) -> list[int]:
        """Return the total size of the buffers of each call of a method."""
        return [size for called, size in self.sizes if called == method]

    def release(self) -> "Future[str]":
        return self._answered(lambda: self.process_release)

    def describe(self) -> "Future[Message]":
        return self._answered(self._describe)

    def _describe(self) -> Message:
        self.device.warm_up()
        threading.Thread(target=self.device.serve, daemon=True).start()
        return Packer().message(
            Description(
                kind=self.kind,
                device=self.device.name,
                place=self.place,
                layers=self.device.layers,
                memory=self.device.memory,
                capacity=self.device.capacity.available,
                seconds_per_operation=0.0,
            )
        )

    def call(self, method: str, message: Message) -> "Future[Message]":
        self.sizes.append((method, sum(len(buffer) for buffer in message.buffers)))
        # What arrives is bytes, and shares no memory.
        copied = Message(bytes(message.document), [memoryview(bytes(buffer)) for buffer in message.buffers])
        return self._answered(functools.partial(getattr(self.host, method), copied))

    def _answered(self, call: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        self.open.append(future)
        if self.is_closed:
            self.kill()
        else:
            threading.Thread(target=self._run, args=(future, call), daemon=True).start()
        return future

    def _run(self, future: "Future[Any]", call: Callable[[], Any]) -> None:
        try:
            answer = call()
            if not (self.is_hung or future.done()):
                future.set_result(answer)
        except BaseException as error:
            if not future.done():
                future.set_exception(error)

    def kill(self) -> None:
        """End the process: whatever it was asked fails."""
        self.is_closed = True
        self.device.close()
        for future in self.open:
            if not future.done():
                future.set_exception(LinkBrokenError("the process has died"))

    def close(self) -> None:
        self.kill()


class Cluster:
    """Starts links, one after the other, to workers of a model."""

    def __init__(self, model: Vgg19, timeout_seconds: float = 30.0):
        self.links: list[FakeLink] = []
        """The links that were started, in order."""
        self.changes: dict[str, Any] = {}
        """The fields of the next links that differ from the usual ones."""
        self.allowed = threading.Event()
        """Lets links start."""
        self.allowed.set()
        self._model = model
        self.timeout_seconds = timeout_seconds
        self.kinds = DeviceKinds(RELEASE, WEIGHTS)

    def start(self) -> FakeLink:
        self.allowed.wait()
        worker = DeviceWorker(self._model)
        worker.memory = 2**30
        link = FakeLink(worker, **self.changes)
        self.links.append(link)
        return link

    def device(self, name: str = "ray-1") -> RemoteDevice:
        return RemoteDevice(name, self.start, self.kinds, self.timeout_seconds)

    def link(self, number: int = -1, seconds: float = 60.0) -> FakeLink:
        """Wait for a link, and return it."""
        ends = time.monotonic() + seconds
        while len(self.links) < (number if number > 0 else 1) and time.monotonic() < ends:
            time.sleep(0.001)
        return self.links[number]
