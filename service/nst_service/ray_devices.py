"""Devices of a Ray cluster: one actor for each, placed by the resources that it needs. Only this module imports Ray.

An actor is never restarted by Ray. A lost one is replaced by a new one, so that nothing of the old one can be mistaken
for the new one. An actor ends by itself if its server does not poll it any more.
"""

import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import ray
import torch

from nst_service.engine.devices import resolve_devices, resolve_precision, set_up_process
from nst_service.engine.network.input_scale import InputScale
from nst_service.engine.network.precision import is_gpu
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.jobs.device_host import DeviceHost
from nst_service.jobs.remote import DeviceKinds, RemoteDevice
from nst_service.jobs.wire import Buffer, Description, Kind, Message, Packer
from nst_service.jobs.worker import DeviceWorker
from nst_service.reloaded import SettingError

_CHOICE = re.compile(r"(gpu|cpu):([0-9]{1,4})(?:-([0-9]{1,4}))?")
_IMAGE_CACHE_BYTES = 256 * 2**20
"""Memory in bytes of each actor for decoded pictures of earlier jobs."""
_ORPHAN_SECONDS = 30.0
"""Seconds without a poll after which an actor ends. A server polls each of its actors once a second or more often."""
_CONNECT_SECONDS = 10.0
"""Seconds in which the head of a cluster must accept a connection."""
_CALLS = 4
"""The number of calls that an actor handles at once: a poll, an order, and the calls of its start."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceCount:
    """The kind and the number of the devices that a server wants of a cluster."""

    is_gpu: bool
    least: int
    """The number of devices in the beginning."""
    most: int
    """The number of devices up to which the server takes more while jobs wait."""

    @classmethod
    def parse(cls, text: str) -> "DeviceCount":
        """Return what a setting such as "gpu:8" or "gpu:2-8" says.

        Raises:
            SettingError: it says something else.
        """
        match = _CHOICE.fullmatch(text.strip().lower())
        least, most = (int(match[2]), int(match[3] or match[2])) if match else (0, 0)
        if match is None or not 1 <= least <= most:
            raise SettingError(
                f"ray_devices is {text!r}; accepted are gpu:N and cpu:N for N devices, gpu:N-M and cpu:N-M for N to M, "
                "from 1"
            )
        return cls(match[1] == "gpu", least, most)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorSettings:
    """What an actor needs to know of the settings of its server."""

    is_gpu: bool
    precision: str
    weights: str
    """The weights, or the path of their file on the machine of the actor."""
    weights_input: str
    threads: int
    """The number of CPU threads."""
    max_job_bytes: int
    style_cache_bytes: int


class RayDevices:
    """The devices that a server has in a Ray cluster."""

    def __init__(self, address: str, settings: ActorSettings, *, weights_sha256: str, timeout_seconds: float):
        """Connect to a cluster.

        Args:
            address: the address of the cluster, as `ray.init` takes it; "local" for one of this machine alone, which
                ends with this process.
            settings: the settings of the actors.
            weights_sha256: the SHA-256 of the weights of this server.
            timeout_seconds: see `RemoteDevice`.

        Raises:
            SettingError: the cluster cannot be reached.
        """
        self._settings = settings
        self._timeout = timeout_seconds
        self._kinds = DeviceKinds(version("nst-stylize"), weights_sha256)
        self._number = 0
        _check_reachable(address)
        try:
            # Ray's own log handlers would replace those of the server.
            own: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
            ray.init(address=address, log_to_driver=False, configure_logging=False, **own)
        except Exception as error:
            raise SettingError(f"no Ray cluster can be used at {address!r}: {error}") from error

    def device(self) -> RemoteDevice:
        """Return a new device. Its actor is started when the device is warmed up."""
        self._number += 1
        name = f"ray-{self._number}"
        start: Callable[[], RayLink] = lambda: RayLink(self._settings)  # noqa: E731
        return RemoteDevice(name, start, self._kinds, self._timeout, self._settings.max_job_bytes)

    def close(self) -> None:
        """End all actors, and leave the cluster."""
        ray.shutdown()


class RayLink:
    """A new actor, as a `Link`."""

    def __init__(self, settings: ActorSettings):
        """Ask the cluster for an actor. It may take the cluster long to place it."""
        resources = {"num_gpus": 1, "num_cpus": 1} if settings.is_gpu else {"num_cpus": settings.threads}
        amounts = " and ".join(f"{name}={count}" for name, count in resources.items())
        self.place = f"an actor with {amounts} in the Ray cluster"
        arguments = json.dumps({name: getattr(settings, name) for name in ActorSettings.__dataclass_fields__})
        actor = ray.remote(DeviceActor).options(**resources, max_restarts=0, max_concurrency=_CALLS)
        self._actor: Any = actor.remote(arguments)

    def release(self) -> "Future[str]":
        """Return the release of nst of the actor."""
        released: Future[str] = self._actor.release.remote().future()
        return released

    def describe(self) -> "Future[Message]":
        """Warm up the device of the actor."""
        return _message(self._actor.describe.remote())

    def call(self, method: str, message: Message) -> "Future[Message]":
        """Call a method of the `DeviceHost` of the actor."""
        return _message(self._actor.call.remote(method, message.document, _arrays(message)))

    def close(self) -> None:
        """Kill the actor."""
        ray.kill(self._actor)


class DeviceActor:
    """The process of a device in a Ray cluster. Ray runs each call in one of several threads."""

    def __init__(self, settings: str):
        """Make an actor of `ActorSettings` in JSON, which does nothing yet."""
        self._settings = settings
        self._host: DeviceHost | None = None

    def release(self) -> str:
        """Return the release of nst. This method must stay as it is: other releases call it."""
        return version("nst-stylize")

    def describe(self) -> tuple[bytes, list[Any]]:
        """Load the weights, warm up the device and let it serve. Return its Description."""
        settings = ActorSettings(**json.loads(self._settings))
        # Ray shows an actor the GPU that it has reserved for it, and no other.
        (device, *_) = resolve_devices("cuda" if settings.is_gpu else "cpu")
        precision = resolve_precision(settings.precision, [device])
        set_up_process([device], precision)
        # Ray has set the number of threads of OpenMP to the number of CPUs that the actor has reserved.
        torch.set_num_threads(settings.threads)
        weights = load_weights(settings.weights, InputScale(settings.weights_input))
        model = Vgg19(weights, device, precision)
        worker = DeviceWorker(model, settings.max_job_bytes, settings.style_cache_bytes)
        worker.warm_up()
        if not is_gpu(device):
            # Other actors have the other CPUs, and the same share of the memory for each.
            worker.memory = round(worker.memory * min(1.0, settings.threads / (os.cpu_count() or 1)))
        self._host = DeviceHost(worker, _IMAGE_CACHE_BYTES)
        threading.Thread(target=worker.serve, name="nst-device", daemon=True).start()
        threading.Thread(target=self._end_when_orphaned, name="nst-orphan", daemon=True).start()
        description = Description(
            kind=Kind(
                release=version("nst-stylize"),
                torch=torch.__version__,
                weights_sha256=model.weights_sha256,
                processor=_processor(device),
                backend=model.backend.value,
                precision=precision.value,
                threads=0 if is_gpu(device) else settings.threads,
            ),
            device=worker.name,
            place=f"{socket.gethostname()}, process {os.getpid()}",
            layers=worker.layers,
            memory=worker.memory,
            capacity=worker.capacity.available,
            seconds_per_operation=worker.throughput.seconds_per_operation,
        )
        return _packed(Packer().message(description))

    def call(self, method: str, document: bytes, buffers: list[Any]) -> tuple[bytes, list[Any]]:
        """Call a method of the host."""
        host = self._host
        assert host
        methods = {"missing": host.missing, "run": host.run, "control": host.control, "poll": host.poll}
        return _packed(methods[method](Message(document, [memoryview(buffer) for buffer in buffers])))

    def _end_when_orphaned(self) -> None:
        assert self._host
        while time.monotonic() - self._host.polled_at < _ORPHAN_SECONDS:
            time.sleep(1.0)
        # The server has died, or cannot be reached and has given this actor up.
        os._exit(0)


def _check_reachable(address: str) -> None:
    """Return if something listens at the address of a cluster, because Ray would try for minutes.

    Raises:
        SettingError: nothing listens there.
    """
    host, colon, port = address.rpartition(":")
    if not colon or "//" in host or not port.isdecimal():
        # "auto", "local", or the address of a Ray client.
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SettingError(f"no Ray cluster can be reached at {address!r}: {error}") from error


def _processor(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if is_gpu(device) else torch.backends.cpu.get_cpu_capability()


def _arrays(message: Message) -> list[Any]:
    """Return the buffers of a message as arrays, which Ray does not copy into its pickles."""
    return [np.frombuffer(buffer, dtype=np.uint8) for buffer in message.buffers]


def _packed(message: Message) -> tuple[bytes, list[Any]]:
    return message.document, _arrays(message)


def _message(reference: Any) -> "Future[Message]":
    """Return the message of a call of an actor."""
    answer: Future[Message] = Future()

    def pass_on(done: "Future[tuple[bytes, list[Buffer]]]") -> None:
        try:
            document, buffers = done.result()
            answer.set_result(Message(document, [memoryview(buffer) for buffer in buffers]))
        except BaseException as error:
            answer.set_exception(error)

    reference.future().add_done_callback(pass_on)
    return answer
