"""The serialisation of what jobs store. The job layer does not know the messages of the contract; `rpc` does."""

from typing import Protocol

from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Completed, ResultHeader
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.stored_request import FindPicture


class Codec(Protocol):
    """Serialises what is stored, and parses what a job needs to go on. Clients parse everything else."""

    def request(self, document: bytes, accepted_event: bytes, find_picture: FindPicture) -> TransferRequest:
        """Parse the document of a stored request. Its options are those that the job was accepted with.

        Options that the document leaves open come from a preset, which another release may define otherwise.

        Raises:
            UnknownPictureError: a picture is missing.
            InvalidRequestError: this release cannot carry out the request.
        """

    def event(self, logged: LoggedEvent) -> bytes:
        """Serialise an event."""

    def result_size(self, event: bytes) -> Size | None:
        """Return the size of the result that a serialised event tells; None if the event tells none."""

    def success(self, header: ResultHeader, completed: Completed) -> bytes:
        """Serialise the outcome of a job that has a picture."""

    def failure(self, error: JobError) -> bytes:
        """Serialise the outcome of a job that has no picture."""
