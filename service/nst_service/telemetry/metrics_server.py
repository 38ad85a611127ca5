"""The HTTP server that Prometheus scrapes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import prometheus_client
from prometheus_client.registry import CollectorRegistry

from nst_service.addresses import AddressError, host_and_port


@contextlib.asynccontextmanager
async def serving_metrics(address: str, registry: CollectorRegistry) -> AsyncIterator[int]:
    """Serve the metrics of a registry at the path /metrics of an address until the context ends. Yield the port.

    Scrapes are answered in threads of their own, so that a client that does not read holds up nothing else.

    Raises:
        AddressError: the server cannot listen on the address.
    """
    host, port = host_and_port(address)
    try:
        server, thread = prometheus_client.start_http_server(port, host, registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressError(f"cannot listen on {address!r} for metrics: {reason}") from error
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
