"""The health service (grpc.health.v1).

The servicer of grpcio-health-checking holds a lock while it writes to a watcher. A watcher that does not read thereby
keeps every further status from being set, and the server from draining.
"""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from nst_service.rpc.delivery import Deliveries
from nst_service.rpc.intake import Context, caller_of

HealthStatus = int
"""A value of `HealthCheckResponse.ServingStatus`."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Serves the statuses of services. It belongs to the event loop."""

    def __init__(self, deliveries: Deliveries):
        self._deliveries = deliveries
        self._statuses: dict[str, HealthStatus] = {}
        self._changed = asyncio.Event()
        """Set, and replaced by another one, when a status changes."""

    def set(self, service: str, status: HealthStatus) -> None:
        """Set the status of a service; "" names the whole server."""
        self._statuses[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return health_pb2.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """Stream the status of a service, now and whenever it changes. A slow watcher misses statuses in between."""
        last, service, caller = None, request.service, caller_of("", context)
        while True:
            changed = self._changed
            status = self._statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status == last:
                await changed.wait()
                continue
            message = health_pb2.HealthCheckResponse(status=status)
            await self._deliveries.write(context, caller, message.SerializeToString())
            last = status
