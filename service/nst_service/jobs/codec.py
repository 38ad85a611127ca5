"""How what jobs keep in the store is written: by the contract, which the jobs do not know."""

from typing import Protocol

from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Completed, ResultHeader
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.stored_request import FindPicture


class Codec(Protocol):
    """Writes what is kept, and reads back what a job needs to go on; what only clients read is theirs to decode."""

    def request(self, document: bytes, find_picture: FindPicture) -> TransferRequest:
        """Read the document of a stored request.

        Raises:
            UnknownPictureError: a picture is not there.
            InvalidRequestError: it says what this version does not know.
        """

    def event(self, logged: LoggedEvent) -> bytes:
        """Write an event."""

    def size(self, event: bytes) -> Size | None:
        """Read the size of the result from an event; None where it does not tell any."""

    def success(self, header: ResultHeader, completed: Completed) -> bytes:
        """Write how a job with a picture ended."""

    def failure(self, error: JobError) -> bytes:
        """Write how a job without a picture ended."""
