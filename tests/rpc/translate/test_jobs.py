from types import SimpleNamespace
from typing import Any

from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.sizes import Size
from nst_service.jobs.errors import DoesNotFitError, UnknownJobError
from nst_service.jobs.events import Progress
from nst_service.jobs.views import JobView
from nst_service.lifecycle import JobState
from nst_service.rpc.status import status_of
from nst_service.rpc.translate.jobs import failure_to_proto, job_to_proto, jobs_to_proto

from tests.jobs.builders import make_stored_job

_MODEL: Any = SimpleNamespace(weights_id="caffe", weights_sha256="00ff")
_PROGRESS = Progress(
    scale=1,
    scales=1,
    iteration=3,
    total_iterations=4,
    total_loss=5.0,
    terms={},
    elapsed_seconds=6.0,
    eta_seconds=7.0,
)


def view(progress: Progress | None = None, job_id: str = "job", **fields: Any) -> JobView:
    accepted = pb.JobEvent(accepted=pb.Accepted(job_id="job", width=16, height=12)).SerializeToString()
    return JobView(make_stored_job(job_id, **{"accepted_event": accepted} | fields), Size(8, 6), progress)


def test_a_job_has_its_size_of_now_and_its_first_event():
    job = job_to_proto(view(job_id="one"), _MODEL)
    assert (job.job_id, job.request_id, job.state) == ("one", "one", pb.JOB_STATE_QUEUED)
    assert (job.width, job.height) == (8, 6)
    assert (job.accepted.width, job.accepted.height) == (16, 12)
    assert not job.HasField("progress")
    assert not job.HasField("end_time")


def test_progress_is_shown_until_the_job_has_ended():
    assert job_to_proto(view(_PROGRESS, state=JobState.RUNNING), _MODEL).progress.iteration == 3
    assert not job_to_proto(view(_PROGRESS, state=JobState.SUCCEEDED, finished_at=1.0), _MODEL).HasField("progress")


def test_a_job_has_the_outcome_that_was_stored():
    outcome = pb.Job(result=pb.ResultHeader(sha256="00ff")).SerializeToString()
    job = job_to_proto(view(state=JobState.SUCCEEDED, outcome=outcome, finished_at=2.5), _MODEL)
    assert job.result.sha256 == "00ff"
    assert job.end_time.ToMicroseconds() == 2_500_000


def test_a_page_with_another_one_behind_it_has_a_token():
    views = [view(number=number) for number in (9, 7, 4)]
    page = jobs_to_proto(views, 2, _MODEL)
    assert len(page.jobs) == 2
    assert page.next_page_token == "7"
    assert jobs_to_proto(views, 3, _MODEL).next_page_token == ""


def test_a_failure_has_the_reason_of_its_status_if_there_is_one():
    failure = failure_to_proto(status_of(DoesNotFitError(2, 1, 1)))
    assert (failure.reason, failure.code) == ("DOES_NOT_FIT", status_of(DoesNotFitError(2, 1, 1)).code)
    assert failure_to_proto(status_of(UnknownJobError("job"))).reason == ""
