"""The service of the contract. It translates, and decides nothing."""

import contextlib
import time
from typing import Any

import grpc
from nst.v1 import style_transfer_pb2 as pb
from nst.v1 import style_transfer_pb2_grpc as pb_grpc

from nst_service.engine.options import DEFAULT_PRESET, OutputOptions, Preset, TransferOptions
from nst_service.engine.pictures import INPUT_MEDIA_TYPES
from nst_service.engine.vgg import Vgg19
from nst_service.jobs.scheduler import Scheduler
from nst_service.rpc.callers import Callers
from nst_service.rpc.status import RequestTooLargeError
from nst_service.rpc.translate import (
    enum_to_proto,
    estimate_to_proto,
    event_to_proto,
    limits_to_proto,
    options_to_proto,
    output_to_proto,
    request_from_proto,
    weights_to_proto,
)

Context = grpc.aio.ServicerContext[Any, Any]


class StyleTransferServicer(pb_grpc.StyleTransferServiceServicer):
    """Serves StyleTransferService over a scheduler. `StatusSeal` turns what it raises into statuses."""

    def __init__(self, scheduler: Scheduler, model: Vgg19, callers: Callers, *, version: str, max_request_bytes: int):
        self._scheduler = scheduler
        self._model = model
        self._callers = callers
        self._version = version
        self._max_request_bytes = max_request_bytes

    # A coroutine that writes, not an async generator: grpc.aio does not close generators when a call is cancelled.
    async def Stylize(self, request: pb.StylizeRequest, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Run a job and stream its events; whatever ends the call early abandons the job."""
        self._check_size(request)
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        job = await self._scheduler.submit(request_from_proto(request), deadline, self._callers.of(context))
        try:
            async with contextlib.aclosing(job.log.follow()) as events:
                async for logged in events:
                    await context.write(pb.StylizeResponse(event=event_to_proto(logged, self._model)))
        finally:
            self._scheduler.abandon(job)

    async def CancelJob(  # noqa: N802
        self, request: pb.CancelJobRequest, context: Context
    ) -> pb.CancelJobResponse:
        """Cancel a job by its id."""
        state = self._scheduler.cancel(request.job_id, self._callers.of(context))
        return pb.CancelJobResponse(state=enum_to_proto(state))

    async def Estimate(  # noqa: N802
        self, request: pb.EstimateRequest, context: Context
    ) -> pb.EstimateResponse:
        """Say what a job would do and cost."""
        self._check_size(request)
        owner = self._callers.of(context)
        return estimate_to_proto(await self._scheduler.estimate(request_from_proto(request.stylize), owner))

    def _check_size(self, request: pb.StylizeRequest | pb.EstimateRequest) -> None:
        if request.ByteSize() > self._max_request_bytes:
            raise RequestTooLargeError(request.ByteSize(), self._max_request_bytes)

    async def GetServerInfo(  # noqa: N802
        self, request: pb.GetServerInfoRequest, context: Context
    ) -> pb.GetServerInfoResponse:
        """Describe the server."""
        del request, context
        scheduler = self._scheduler
        return pb.GetServerInfoResponse(
            version=self._version,
            weights=weights_to_proto(self._model),
            devices=scheduler.devices,
            default_options=options_to_proto(TransferOptions.from_preset(DEFAULT_PRESET).completed()),
            default_output=output_to_proto(OutputOptions()),
            layers=self._model.layers,
            input_media_types=INPUT_MEDIA_TYPES,
            limits=limits_to_proto(
                scheduler.limits, max_request_bytes=self._max_request_bytes, max_queued_jobs=scheduler.max_queued
            ),
            queued_jobs=scheduler.queued_jobs,
            running_jobs=scheduler.running_jobs,
            presets=[options_to_proto(TransferOptions.from_preset(preset).completed()) for preset in Preset],
        )
