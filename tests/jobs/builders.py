"""What tests of jobs are made of."""

import pickle
from typing import Any

from nst_service.engine.options import Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Accepted, Completed, Reduced, ResultHeader
from nst_service.jobs.job import Job
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.stored_request import FindPicture, ReadRequest, StoredRequest
from nst_service.jobs.views import Durability
from nst_service.store.records import StoredJob

LIMITS = Limits(max_input_pixels=10**6, max_image_size=512, max_iterations=10**5, max_styles=2)


DURABILITY = Durability(checkpoint_seconds=3600, reattach_seconds=3600, retention_seconds=3600, is_alone=True)


class PlainCodec:
    """Writes what no test of the scheduler reads back, but requests, and of events the size that they tell."""

    def request(self, document: bytes, find_picture: FindPicture) -> TransferRequest:
        del find_picture
        request: TransferRequest = pickle.loads(document)
        return request

    def event(self, logged: LoggedEvent) -> bytes:
        size = (event.width, event.height) if isinstance(event := logged.event, Accepted | Reduced) else None
        return pickle.dumps(size)

    def result_size(self, event: bytes) -> Size | None:
        size: Size | None = pickle.loads(event)
        return size

    def success(self, header: ResultHeader, completed: Completed) -> bytes:
        del header
        return completed.stop_reason.encode()

    def failure(self, error: JobError) -> bytes:
        return str(error).encode()


async def submit(
    scheduler: Scheduler, request: TransferRequest, deadline: float | None = None, **fields: Any
) -> Job | StoredJob:
    """Hand a request to a scheduler as the service does."""
    return await scheduler.submit(read_request(request, **fields), deadline, request_id=fields.get("request_id"))


def read_request(request: TransferRequest, **fields: Any) -> ReadRequest:
    """Return what reads a request."""
    return lambda _: StoredRequest(request=request, document=pickle.dumps(request), pictures={}, **fields)
