"""The gRPC server: it listens, serves the contract, and drains."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_launcher.signals import STOP_SIGNALS

from nst_service import tokens
from nst_service.addresses import AddressError, check_address, check_exposure, is_loopback, reason_of_failure
from nst_service.config import ServerConfig
from nst_service.jobs.observer import Observers
from nst_service.reloaded import SettingError
from nst_service.rpc.auth import Authenticator, TokenInterceptor
from nst_service.rpc.codec import ProtoCodec
from nst_service.rpc.delivery import Deliveries
from nst_service.rpc.error_interceptor import ErrorInterceptor
from nst_service.rpc.health import HealthServicer, HealthStatus
from nst_service.rpc.intake import LOOKAHEAD_BYTES, Intake, IntakeLimits
from nst_service.rpc.intake_interceptor import IntakeInterceptor
from nst_service.rpc.servicer import StyleTransferServicer
from nst_service.rpc.status import REFUSALS_OF_CALLS, reason_of
from nst_service.runtime import build_runtime
from nst_service.telemetry.calls import CallInterceptor
from nst_service.telemetry.job_log import JobLog
from nst_service.tls import TlsFiles, server_credentials

if TYPE_CHECKING:
    from nst_service.telemetry.metrics import ServerMetrics

_log = logging.getLogger(__name__)

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["StyleTransferService"].full_name

_FLUSH_SECONDS = 5.0
"""Seconds in which the last messages can reach their clients after the last job has ended."""
_CLOSE_SECONDS = 1.0
"""Seconds that the store gets in the end. A store that hangs is not waited for: other servers take over the jobs."""
_KEEPALIVE_SECONDS, _KEEPALIVE_PATIENCE = 30.0, 20.0
"""Seconds without traffic after which the server pings a client, and seconds in which the client must answer.

Nothing else shows that the machine of a client has lost its power or its network, and its job would keep the device.
"""
_UNCOMPRESSED = 1 << 0
"""The bit set of the compression algorithms that messages may use: none.

Pictures are compressed already, and a small compressed message could become as large as any request may be.
"""
_HANDSHAKE_SECONDS = 20
"""Seconds within which a connection must be established, including TLS."""
_IDLE_SECONDS = 60.0
"""Seconds without a call after which a connection is closed, so that it takes no place from others.

Clients connect again with their next call, without an error.
"""
_HEALTH_SHARE = 4
"""The number of connections that the server allows for each watch of its health, which needs no token."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnd:
    """The end of a server."""

    is_idle: bool
    """Whether every device is idle (see `Scheduler.drain`)."""
    device_failed: bool
    """Whether a device has failed."""


class Server:
    """A server on one address, with the devices of this process."""

    def __init__(self, config: ServerConfig):
        """Load the weights onto the devices and open the store.

        Raises:
            DeviceError: a device is not available, or does not support the precision.
            WeightsError: the weights cannot be used.
            SettingError: a certificate, the tokens, the address or a URL of the store cannot be used.
            StoreError: the store cannot be used.
        """
        self._config = config
        check_address(config.address)
        self._credentials = _credentials(config)
        self._authenticator = Authenticator(tokens.follow(Path(config.tokens)) if config.tokens else None)
        self._log = JobLog(reason_of, REFUSALS_OF_CALLS)
        self._metrics = _metrics(config)
        self.metrics_port = 0
        """The port of the metrics; 0 before it is open, and without metrics."""
        self._observers = (self._log, self._metrics) if self._metrics else (self._log,)
        runtime = build_runtime(config, ProtoCodec, Observers(*self._observers))
        self._model = runtime.model
        self._close_devices = runtime.close
        self._memory = runtime.memory
        self.scheduler = runtime.scheduler
        if self._metrics:
            self._metrics.watch(self.scheduler.gauges.read)
            self._metrics.describe(
                weights=self._model.weights_id,
                max_queued=config.max_queued,
                max_store_bytes=config.max_store_bytes,
                devices=self.scheduler.views.devices,
            )

    async def run(self, stop: asyncio.Event, on_listening: Callable[[int], None] | None = None) -> ServerEnd:
        """Serve the contract and the metrics until `stop` is set or no device is left, then drain.

        Args:
            stop: set to end the server.
            on_listening: called with the port when it is open. The server is warming up then.

        Raises:
            AddressError: the server cannot listen on an address.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self._metrics:
                self.metrics_port = await stack.enter_async_context(self._metrics.serving(self._config.metrics_address))
                _log.info("metrics on port %d", self.metrics_port)
            return await self._run(stop, on_listening)

    async def _run(self, stop: asyncio.Event, on_listening: Callable[[int], None] | None) -> ServerEnd:
        config = self._config
        limits = IntakeLimits(
            max_request_bytes=config.max_request_bytes,
            message_seconds=config.message_seconds,
            max_calls=config.max_calls,
            max_health_watches=max(1, config.max_connections // _HEALTH_SHARE),
        )
        deliveries = Deliveries(self._memory.delivery)
        server = grpc.aio.server(
            interceptors=[
                CallInterceptor(*self._observers),
                TokenInterceptor(self._authenticator),
                ErrorInterceptor(),
                IntakeInterceptor(
                    Intake(self.scheduler.pending, limits), deliveries, self._authenticator, config.message_seconds
                ),
            ],
            options=[
                ("grpc.max_receive_message_length", limits.max_message_bytes),
                # The window of a stream that nobody reads must not grow.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
                ("grpc.max_connection_idle_ms", round(_IDLE_SECONDS * 1000)),
                ("grpc.max_allowed_incoming_connections", config.max_connections),
                ("grpc.max_concurrent_streams", config.max_streams),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
                ("grpc.keepalive_time_ms", round(_KEEPALIVE_SECONDS * 1000)),
                ("grpc.keepalive_timeout_ms", round(_KEEPALIVE_PATIENCE * 1000)),
                # Connections without calls count against the limit too.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.so_reuseport", 0),
                ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED),
            ],
        )
        health_servicer = HealthServicer(deliveries)
        servicer = StyleTransferServicer(
            self.scheduler,
            self._model,
            self._authenticator,
            deliveries,
            version=version("nst-stylize"),
            max_request_bytes=config.max_request_bytes,
        )
        pb_grpc.add_StyleTransferServiceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

        def set_health(status: HealthStatus) -> None:
            for service in ("", SERVICE_NAME):
                health_servicer.set(service, status)

        set_health(_NOT_SERVING)
        # Another server may have started while this one loaded its weights.
        check_address(config.address)
        try:
            port = (
                server.add_secure_port(config.address, self._credentials)
                if self._credentials
                else server.add_insecure_port(config.address)
            )
        except RuntimeError as error:
            reason = reason_of_failure(config.address)
            raise AddressError(f"cannot listen on {config.address!r}: {reason}") from error
        await server.start()
        try:
            if on_listening:
                on_listening(port)
            _log.info("listening on port %d, warming up %s", port, ", ".join(self.scheduler.views.devices))
            await self._start(stop)
            if not stop.is_set():
                _log.info("serving with weights %s", self._model.weights_id)
            reporting = asyncio.create_task(self._report_health(stop, set_health))
            await _first_of(stop, self.scheduler.device_failed)
            reporting.cancel()
            device_failed = self.scheduler.device_failed.is_set()
            grace = 0.0 if device_failed else config.grace
            set_health(_NOT_SERVING)
            is_idle = await self.scheduler.drain(grace)
        finally:
            await server.stop(_FLUSH_SECONDS)
        try:
            await asyncio.wait_for(self.scheduler.close(), _CLOSE_SECONDS)
        except TimeoutError:
            _log.warning("the store could not be closed in time")
        await asyncio.to_thread(self._close_devices)
        _log.info("stopped")
        return ServerEnd(is_idle=is_idle, device_failed=device_failed)

    async def _start(self, stop: asyncio.Event) -> None:
        """Start the scheduler, unless `stop` is set first: it may take long until a device of a cluster is ready."""
        starting = asyncio.create_task(self.scheduler.start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if starting.done():
            await starting
        else:
            starting.cancel()

    async def _report_health(self, stop: asyncio.Event, set_health: Callable[[HealthStatus], None]) -> None:
        """Serve while a device can run jobs, so that a load balancer sends new calls to servers that have one."""
        while not stop.is_set():
            await self.scheduler.devices_ready.wait()
            set_health(_SERVING)
            await self.scheduler.devices_lost.wait()
            set_health(_NOT_SERVING)


def _metrics(config: ServerConfig) -> "ServerMetrics | None":
    """Return the metrics of the server; None if nobody can scrape them.

    Raises:
        SettingError: the libraries of the metrics are missing.
    """
    if not config.metrics_address:
        return None
    try:
        from nst_service.telemetry.metrics import ServerMetrics  # noqa: PLC0415 # The libraries are optional.
    except ModuleNotFoundError as error:
        raise SettingError(
            f"metrics_address needs {error.name}, which is not installed: pip install 'nst-stylize[metrics]'"
        ) from error
    files = {"tls_certificate": config.tls_certificate, "tls_client_ca": config.tls_client_ca}
    return ServerMetrics(
        reason_of,
        REFUSALS_OF_CALLS,
        has_owners=config.metrics_owners,
        certificates={name: Path(path) for name, path in files.items() if path},
    )


def _credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """Return the credentials of the port; None for a port without encryption.

    Raises:
        SettingError: the certificate cannot be used, or the address must not be used without one.
    """
    encrypted = bool(config.tls_certificate and config.tls_key)
    if not encrypted and (config.tls_certificate or config.tls_key or config.tls_client_ca):
        raise SettingError("TLS needs both tls_certificate and tls_key, and tls_client_ca needs TLS")
    check_exposure(config.address, encrypted=encrypted, insecure=config.insecure)
    if not (config.tokens or config.tls_client_ca or is_loopback(config.address)):
        _log.warning(
            "anyone who can connect to %s can use the server: neither tokens nor tls_client_ca is set", config.address
        )
    if not encrypted:
        return None
    return server_credentials(
        TlsFiles(
            certificate=Path(config.tls_certificate),
            key=Path(config.tls_key),
            client_ca=Path(config.tls_client_ca) if config.tls_client_ca else None,
        )
    )


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def serve(config: ServerConfig) -> ServerEnd:
    """Run a server until a signal asks it to end. A second signal ends the grace period.

    Until the server is made, the signals keep the handlers that they had.

    Raises:
        EngineError: see `Server`.
        SettingError: see `Server`.
        StoreError: see `Server`.
    """
    server = Server(config)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            _log.info("draining: running jobs end now")
            server.scheduler.dispatcher.finish_early()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, on_signal)
    return await server.run(stop)
