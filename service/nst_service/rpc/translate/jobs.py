"""The translation of jobs, as their owners see them, to the contract."""

from collections.abc import Sequence

from google.rpc import error_details_pb2, status_pb2
from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.network.vgg import Vgg19
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.views import JobView
from nst_service.rpc.translate.events import event_to_proto
from nst_service.rpc.translate.fields import enum_to_proto


def job_to_proto(view: JobView, model: Vgg19) -> pb.Job:
    """Translate the view of a job that runs on a model."""
    stored = view.stored
    job = pb.Job.FromString(stored.outcome or b"")
    job.job_id = stored.id
    job.request_id = stored.request_id or ""
    job.state = enum_to_proto(stored.state)
    job.disconnect_policy = enum_to_proto(stored.disconnect_policy)
    job.create_time.FromMicroseconds(round(stored.created_at * 1e6))
    if stored.finished_at is not None:
        job.end_time.FromMicroseconds(round(stored.finished_at * 1e6))
    job.accepted.CopyFrom(pb.JobEvent.FromString(stored.accepted_event).accepted)
    job.width, job.height = view.size
    if view.progress and not stored.state.is_terminal:
        job.progress.CopyFrom(event_to_proto(LoggedEvent(0, view.progress), model).progress)
    return job


def jobs_to_proto(views: Sequence[JobView], size: int, model: Vgg19) -> pb.ListJobsResponse:
    """Translate a page of jobs. If there are more views than the size of the page, a token for the next page is set."""
    token = str(views[size - 1].stored.number) if len(views) > size else ""
    return pb.ListJobsResponse(jobs=[job_to_proto(view, model) for view in views[:size]], next_page_token=token)


def failure_to_proto(status: status_pb2.Status) -> pb.JobFailure:
    """Translate the status with which a job has ended."""
    info = error_details_pb2.ErrorInfo()
    reason = next((info.reason for detail in status.details if detail.Unpack(info)), "")
    return pb.JobFailure(code=status.code, message=status.message, reason=reason, details=status.details)
