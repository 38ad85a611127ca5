"""The service of the contract. It translates between the contract and the scheduler, and decides nothing."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_service.engine.choices import Preset
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.options import DEFAULT_PRESET, OutputOptions, TransferOptions
from nst_service.engine.pictures.formats import INPUT_MEDIA_TYPES
from nst_service.jobs.events import Event, Preview, ResultChunk
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.quotas import Owner
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.stored_request import ReadRequest
from nst_service.rpc.auth import Authenticator
from nst_service.rpc.codec import named_pictures, stored_request_from_proto
from nst_service.rpc.delivery import Deliveries
from nst_service.rpc.errors import RequestTooLargeError
from nst_service.rpc.intake import Context, caller_of
from nst_service.rpc.translate.events import estimate_to_proto, event_to_proto
from nst_service.rpc.translate.fields import enum_to_proto
from nst_service.rpc.translate.jobs import job_to_proto, jobs_to_proto
from nst_service.rpc.translate.options import limits_to_proto, options_to_proto, output_to_proto, weights_to_proto
from nst_service.rpc.translate.requests import JobRequest, check_job_name, page_from_proto

_Response = Callable[[pb.JobEvent], pb.StylizeResponse | pb.WatchJobResponse]
"""Returns the response that carries an event."""


class StyleTransferServicer(pb_grpc.StyleTransferServiceServicer):
    """Serves StyleTransferService with a scheduler.

    `IntakeInterceptor` reads its requests, and `ErrorInterceptor` turns its errors into statuses.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        model: Vgg19,
        authenticator: Authenticator,
        deliveries: Deliveries,
        *,
        version: str,
        max_request_bytes: int,
    ):
        """Make the service.

        Args:
            scheduler: runs the jobs.
            model: the network on the first device.
            authenticator: tells the owner of a call.
            deliveries: sends the events of jobs.
            version: the version of the server.
            max_request_bytes: the largest size of a request in bytes.
        """
        self._scheduler = scheduler
        self._model = model
        self._authenticator = authenticator
        self._deliveries = deliveries
        self._version = version
        self._max_request_bytes = max_request_bytes

    # A coroutine that writes, and not an async generator: it closes the events itself when the call is cancelled.
    async def Stylize(self, request: pb.StylizeRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Start a job, or find the job of the same request, and stream its events."""
        size = self._checked_size(request)
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        owner = self._authenticator.owner(context)
        read, named, request_id = _reader(request), named_pictures(request), request.request_id or None
        # The reader alone has the request now, and lets it go when its pictures have been copied.
        del request
        job_id = (await self._scheduler.submit(read, deadline, owner, request_id, size=size, named=named)).id
        await self._send_events(context, job_id, owner, 0, lambda event: pb.StylizeResponse(event=event))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Stream the events of a job."""
        owner = self._authenticator.owner(context)
        job_id = await self._job_id(request, owner)
        await self._send_events(
            context, job_id, owner, request.after_sequence, lambda event: pb.WatchJobResponse(event=event)
        )

    async def _send_events(self, context: Context, job_id: str, owner: Owner, after: int, response: _Response) -> None:
        caller = caller_of(owner.name, context)

        def serialized(logged: LoggedEvent) -> bytes:
            return response(event_to_proto(logged, self._model)).SerializeToString()

        async with contextlib.aclosing(self._scheduler.follow(job_id, owner, after)) as events:
            async for logged in events:
                if size := _picture_bytes(logged.event):
                    # A call that waits for its turn holds no picture.
                    async with self._deliveries.turn(context, caller, size):
                        await context.write(await asyncio.to_thread(serialized, logged))
                else:
                    await self._deliveries.write(context, caller, serialized(logged))

    async def GetJob(self, request: pb.GetJobRequest, context: Context) -> pb.GetJobResponse:  # noqa: N802
        """Describe a job."""
        owner = self._authenticator.owner(context)
        view = await self._scheduler.views.view(await self._job_id(request, owner), owner)
        return pb.GetJobResponse(job=job_to_proto(view, self._model))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Context) -> pb.ListJobsResponse:  # noqa: N802
        """List the caller's jobs."""
        page = page_from_proto(request)
        views = await self._scheduler.views.page(
            self._authenticator.owner(context), states=page.states, before=page.before, limit=page.size + 1
        )
        return jobs_to_proto(views, page.size, self._model)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Cancel a job and return its state before."""
        owner = self._authenticator.owner(context)
        state = await self._scheduler.cancel(await self._job_id(request, owner), owner)
        return pb.CancelJobResponse(state=enum_to_proto(state))

    async def _job_id(self, request: JobRequest, owner: Owner) -> str:
        check_job_name(request)
        return request.job_id or await self._scheduler.views.job_id(request.request_id, owner)

    async def Estimate(  # noqa: N802
        self, request: pb.EstimateRequest, context: Context
    ) -> pb.EstimateResponse:
        """Describe the job that a request would lead to, and its cost."""
        size = self._checked_size(request)
        owner = self._authenticator.owner(context)
        read, named = _reader(request.stylize), named_pictures(request.stylize)
        del request
        return estimate_to_proto(await self._scheduler.estimate(read, owner, size=size, named=named))

    def _checked_size(self, request: pb.StylizeRequest | pb.EstimateRequest) -> int:
        size = request.ByteSize()
        if size > self._max_request_bytes:
            raise RequestTooLargeError(size, self._max_request_bytes)
        return size

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Describe the server."""
        del request, context
        scheduler = self._scheduler
        return pb.GetServerInfoResponse(
            version=self._version,
            weights=weights_to_proto(self._model),
            devices=scheduler.views.devices,
            default_options=options_to_proto(TransferOptions.from_preset(DEFAULT_PRESET).completed()),
            default_output=output_to_proto(OutputOptions()),
            layers=self._model.layers,
            input_media_types=INPUT_MEDIA_TYPES,
            limits=limits_to_proto(
                scheduler.limits,
                scheduler.durability,
                max_request_bytes=self._max_request_bytes,
                max_queued_jobs=scheduler.queue_limits.max_queued,
            ),
            queued_jobs=scheduler.views.queued_jobs,
            running_jobs=scheduler.views.running_jobs,
            presets=[options_to_proto(TransferOptions.from_preset(preset).completed()) for preset in Preset],
        )


def _reader(request: pb.StylizeRequest) -> ReadRequest:
    """Return a function that reads a request once."""
    requests = [request]
    return lambda find_picture: stored_request_from_proto(requests.pop(), find_picture)


def _picture_bytes(event: Event) -> int:
    """Return the number of bytes of a picture, or of a part of one, that an event has."""
    match event:
        case ResultChunk():
            return event.size
        case Preview(data=data):
            return len(data)
        case _:
            return 0
