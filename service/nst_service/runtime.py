"""Makes the devices, the store and the scheduler of a server from its configuration, without gRPC."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_data_path

from nst_service.config import ServerConfig
from nst_service.engine.devices import resolve_devices, resolve_precision, set_up_process
from nst_service.engine.network.input_scale import InputScale
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.options import Limits
from nst_service.jobs.codec import Codec
from nst_service.jobs.decoders import DecoderLimits
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import Observer
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.views import Durability
from nst_service.jobs.worker import DeviceWorker
from nst_service.reloaded import SettingError
from nst_service.store.records import Retention
from nst_service.store.store import Store

_LEASE_SECONDS = 30.0
"""Seconds without a heartbeat after which servers that share a database take over the jobs of another one."""
_DECODERS = 2
"""The number of processes that decode pictures."""
_DECODER_BYTES = 2**31
"""Memory of each of them in bytes."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of this process that compute and store jobs."""

    model: Vgg19
    """The network on the first device. The other devices have networks with the same weights."""
    scheduler: Scheduler
    """The scheduler, which is not started yet."""


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
        SettingError: a URL of the store cannot be used.
        StoreError: the store cannot be used.
    """
    models = load_models(config)
    scheduler = Scheduler(
        [DeviceWorker(model, config.max_job_bytes, config.style_cache_bytes) for model in models],
        AsyncJobStore(open_store(config), make_codec(models[0]), observer),
        limits=Limits(
            max_input_pixels=config.max_input_pixels,
            max_request_pixels=config.max_request_pixels,
            max_image_size=config.max_image_size,
            max_iterations=config.max_iterations,
            max_styles=config.max_styles,
        ),
        queue_limits=QueueLimits(
            max_queued=config.max_queued,
            max_pending_bytes=config.max_pending_bytes,
            max_running=config.max_running,
        ),
        decoder_limits=DecoderLimits(
            processes=_DECODERS,
            max_bytes=_DECODER_BYTES,
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
    return Runtime(models[0], scheduler)


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
