"""The translation of the events of a job, and of its estimate, to the contract."""

from collections.abc import Mapping
from typing import assert_never

from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.losses import Term
from nst_service.jobs import events
from nst_service.jobs.log import LoggedEvent
from nst_service.rpc.translate.fields import enum_to_proto
from nst_service.rpc.translate.options import options_to_proto, output_to_proto, weights_to_proto


def event_to_proto(logged: LoggedEvent, model: Vgg19) -> pb.JobEvent:
    """Translate an event of a job that runs on a model."""
    message = pb.JobEvent(sequence=logged.sequence)
    match logged.event:
        case events.SerializedEvent() as event:
            message.ParseFromString(event.data)
        case events.Accepted() as event:
            message.accepted.CopyFrom(
                pb.Accepted(
                    job_id=event.job_id,
                    options=options_to_proto(event.options),
                    output=output_to_proto(event.output),
                    weights=weights_to_proto(model),
                    width=event.width,
                    height=event.height,
                    estimate=_estimate_to_proto(event.estimate),
                )
            )
        case events.Queued() as event:
            message.queued.CopyFrom(pb.Queued(position=event.position, eta_seconds=event.eta_seconds))
        case events.Started() as event:
            message.started.CopyFrom(pb.Started(device=event.device, queued_seconds=event.queued_seconds))
        case events.Preparing() as event:
            message.preparing.CopyFrom(
                pb.Preparing(scale=event.scale, scales=event.scales, part=event.part, parts=event.parts)
            )
        case events.Reduced() as event:
            message.reduced.CopyFrom(pb.Reduced(width=event.width, height=event.height))
        case events.Progress() as event:
            message.progress.CopyFrom(
                pb.Progress(
                    scale=event.scale,
                    scales=event.scales,
                    iteration=event.iteration,
                    total_iterations=event.total_iterations,
                    total_loss=event.total_loss,
                    terms=_terms_to_proto(event.terms),
                    elapsed_seconds=event.elapsed_seconds,
                    eta_seconds=event.eta_seconds,
                )
            )
        case events.Preview() as event:
            message.preview.CopyFrom(
                pb.Preview(
                    iteration=event.iteration,
                    media_type=event.media_type,
                    width=event.width,
                    height=event.height,
                    data=event.data,
                )
            )
        case events.ResultHeader() as event:
            message.result_header.CopyFrom(header_to_proto(event))
        case events.ResultChunk() as event:
            message.result_chunk.CopyFrom(pb.ResultChunk(offset=event.offset, data=bytes(event.data)))
        case events.Completed() as event:
            message.completed.CopyFrom(completed_to_proto(event, model))
        case unknown:
            assert_never(unknown)
    return message


def header_to_proto(header: events.ResultHeader) -> pb.ResultHeader:
    """Translate the header of a finished picture."""
    return pb.ResultHeader(
        media_type=header.media_type,
        width=header.width,
        height=header.height,
        size_bytes=header.size_bytes,
        sha256=header.sha256,
    )


def completed_to_proto(completed: events.Completed, model: Vgg19) -> pb.Completed:
    """Translate the end of a job that has a picture and ran on a model."""
    return pb.Completed(
        stop_reason=enum_to_proto(completed.stop_reason),
        iterations=completed.iterations,
        total_loss=completed.total_loss,
        terms=_terms_to_proto(completed.terms),
        timings=pb.Timings(
            queued_seconds=completed.timings.queued,
            targets_seconds=completed.timings.targets,
            optimize_seconds=completed.timings.optimize,
            encode_seconds=completed.timings.encode,
        ),
        weights=weights_to_proto(model),
    )


def estimate_to_proto(accepted: events.Accepted) -> pb.EstimateResponse:
    """Translate the first event of a job that is only estimated."""
    return pb.EstimateResponse(
        options=options_to_proto(accepted.options),
        output=output_to_proto(accepted.output),
        width=accepted.width,
        height=accepted.height,
        estimate=_estimate_to_proto(accepted.estimate),
    )


def _estimate_to_proto(estimate: events.CostEstimate) -> pb.CostEstimate:
    return pb.CostEstimate(
        seconds=estimate.seconds,
        queue_seconds=estimate.queue_seconds,
        peak_memory_bytes=estimate.peak_memory_bytes,
        tile_size=estimate.tile_size,
        reduced_from=estimate.reduced_from,
    )


def _terms_to_proto(terms: Mapping[Term, float]) -> list[pb.LossTerm]:
    return [pb.LossTerm(kind=enum_to_proto(term.kind), layer=term.layer, value=value) for term, value in terms.items()]
