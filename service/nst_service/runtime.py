"""Makes the devices, the store and the scheduler of a server from its configuration, without gRPC."""

import contextlib
import functools
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_data_path

from nst_service.config import ServerConfig
from nst_service.engine.devices import (
    machine_bytes,
    resolve_devices,
    resolve_precision,
    set_up_process,
    used_bytes,
)
from nst_service.engine.network.input_scale import InputScale
from nst_service.engine.network.precision import is_gpu
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.options import Limits
from nst_service.jobs.autoscaling import Autoscaler
from nst_service.jobs.codec import Codec
from nst_service.jobs.decoders import DecoderLimits
from nst_service.jobs.device import Device
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import Observer
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.views import Durability
from nst_service.jobs.worker import DeviceWorker
from nst_service.memory_budget import MemoryBudget, TooLittleMemoryError, divide
from nst_service.reloaded import SettingError
from nst_service.store.records import Retention
from nst_service.store.store import Store

_log = logging.getLogger(__name__)

_LEASE_SECONDS = 30.0
"""Seconds without a heartbeat after which servers that share a database take over the jobs of another one."""
_DECODERS = 2
"""The number of processes that decode pictures."""
_MEMORY_SHARE = 0.8
"""The share of the memory of the machine or of the container that the server uses if nothing else is set."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of this process that compute and store jobs."""

    model: Vgg19
    """The network on the first device, or on none. All devices have networks with the same weights."""
    scheduler: Scheduler
    """The scheduler, which is not started yet."""
    memory: MemoryBudget
    """The parts of the memory of this process."""
    close: Callable[[], None]
    """Gives back the devices that are not of this machine, when the scheduler is closed. It blocks."""


def build_runtime(
    config: ServerConfig, make_codec: Callable[[Vgg19], Codec], observer: Observer | None = None
) -> Runtime:
    """Set up this process, load the weights onto the devices, and open the store.

    Args:
        config: the settings.
        make_codec: returns the codec of the jobs that run on a network.
        observer: notified of every fact of a job's life; None for no observer.

    Raises:
        DeviceError: a device is not available, or does not support the precision.
        WeightsError: the weights cannot be used.
        SettingError: a URL of the store, or a Ray cluster, cannot be used, or the memory does not suffice.
        StoreError: the store cannot be used.
    """
    devices = _devices(config)
    scheduler = Scheduler(
        devices.devices,
        AsyncJobStore(open_store(config), make_codec(devices.model), observer),
        limits=Limits(
            max_input_pixels=config.max_input_pixels,
            max_request_pixels=config.max_request_pixels,
            max_image_size=config.max_image_size,
            max_iterations=config.max_iterations,
            max_styles=config.max_styles,
        ),
        queue_limits=QueueLimits(
            max_queued=config.max_queued,
            max_pending_bytes=devices.memory.pending,
            max_running=config.max_running,
            max_picture_bytes=sys.maxsize if devices.compute_in_memory else devices.memory.jobs,
        ),
        decoder_limits=DecoderLimits(
            processes=_DECODERS,
            max_bytes=devices.memory.decoder,
            request_seconds=config.decode_seconds,
        ),
        durability=Durability(
            checkpoint_seconds=config.checkpoint_seconds,
            reattach_seconds=config.reattach_seconds,
            retention_seconds=config.keep_seconds,
            is_alone=not config.database,
        ),
        observer=observer,
    )
    if devices.make and devices.most > len(devices.devices):
        scheduler.autoscale(Autoscaler(len(devices.devices), devices.most), devices.make)
    return Runtime(devices.model, scheduler, devices.memory, devices.close)


@dataclass(frozen=True, slots=True)
class _Devices:
    """The devices of a server."""

    model: Vgg19
    devices: Sequence[Device]
    memory: MemoryBudget
    compute_in_memory: bool
    """Whether the devices compute in the memory of this process, and count the pictures of their jobs."""
    close: Callable[[], None]
    most: int = 0
    """The number of devices up to which `make` may be called; 0 for a fixed number."""
    make: Callable[[], Device] | None = None
    """Returns another device."""


def _devices(config: ServerConfig) -> _Devices:
    if config.ray:
        return _ray_devices(config)
    models = load_models(config)
    memory = _memory(config)
    workers = [DeviceWorker(model, config.max_job_bytes, config.style_cache_bytes, memory.jobs) for model in models]
    return _Devices(models[0], workers, memory, not is_gpu(models[0].device), lambda: None)


def _memory(config: ServerConfig) -> MemoryBudget:
    """Divide the memory of a process that has loaded its weights."""
    divided = functools.partial(
        divide,
        resting=used_bytes("cpu") or 0,
        max_request_bytes=config.max_request_bytes,
        max_calls=config.max_calls,
        decoders=_DECODERS,
        pending=config.max_pending_bytes,
    )
    if config.memory_bytes:
        return divided(config.memory_bytes)
    try:
        return divided(round(_MEMORY_SHARE * machine_bytes()))
    except TooLittleMemoryError as error:
        _log.warning("this machine has little memory for a server with these settings: %s", error)
        return error.least


def _ray_devices(config: ServerConfig) -> _Devices:
    # This process computes nothing. It tells its clients which weights the devices have.
    model = Vgg19(load_weights(config.weights, InputScale(config.weights_input)), torch.device("cpu"))
    with _process_kept():
        # Only servers with a cluster need the library, which takes long to import.
        try:
            from nst_service.ray_devices import ActorSettings, DeviceCount, RayDevices  # noqa: PLC0415
        except ModuleNotFoundError as error:
            message = f"ray is set, but {error.name} is not installed: pip install 'nst-stylize[ray]'"
            raise SettingError(message) from error
        count = DeviceCount.parse(config.ray_devices)
        settings = ActorSettings(
            is_gpu=count.is_gpu,
            precision=config.precision,
            weights=config.weights,
            weights_input=config.weights_input,
            threads=config.threads or 1,
            max_job_bytes=config.max_job_bytes,
            style_cache_bytes=config.style_cache_bytes,
        )
        devices = RayDevices(
            config.ray, settings, weights_sha256=model.weights_sha256, timeout_seconds=config.ray_timeout
        )
    return _Devices(
        model,
        [devices.device() for _ in range(count.least)],
        _memory(config),
        False,
        devices.close,
        most=count.most,
        make=devices.device,
    )


@contextlib.contextmanager
def _process_kept() -> Iterator[None]:
    """Keep what Ray replaces in the whole process: the factory of log records, and the handler of SIGTERM."""
    factory, handler = logging.getLogRecordFactory(), signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        logging.setLogRecordFactory(factory)
        # Ray leaves the handler alone in other threads, where nobody can set one.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def load_models(config: ServerConfig) -> list[Vgg19]:
    """Set up this process for the devices, and return a network on each.

    Raises:
        DeviceError: a device is not available, or does not support the precision.
        WeightsError: the weights cannot be used.
    """
    devices = resolve_devices(config.device)
    precision = resolve_precision(config.precision, devices)
    set_up_process(devices, precision)
    if config.threads:
        torch.set_num_threads(config.threads)
    weights = load_weights(config.weights, InputScale(config.weights_input))
    return [Vgg19(weights, device, precision) for device in devices]


def open_store(config: ServerConfig) -> Store:
    """Open the store of jobs.

    Raises:
        SettingError: a URL of the store cannot be used.
        StoreError: the store cannot be used.
    """
    try:
        return Store.open(
            Path(config.data_dir) if config.data_dir else user_data_path("nst"),
            database_url=config.database or None,
            blobs_url=config.blobs or None,
            retention=Retention(
                max_age_seconds=config.keep_seconds,
                max_bytes=config.max_store_bytes,
                min_free_bytes=config.min_free_bytes,
            ),
            lease_seconds=_LEASE_SECONDS,
        )
    except ValueError as error:
        raise SettingError(str(error)) from error
