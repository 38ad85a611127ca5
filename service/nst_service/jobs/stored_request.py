"""Requests in the form in which they are stored."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nst_service.engine.spec import TransferRequest
from nst_service.store.records import DisconnectPolicy

FindPicture = Callable[[str], bytes | None]
"""Returns the picture with a SHA-256 that the caller has sent or received before; None if there is no such picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """A request, with everything that is needed to read it again after a restart."""

    request: TransferRequest
    document: bytes = field(repr=False)
    """The serialised request, with the SHA-256 of each picture in its place. Equal requests have equal documents."""
    pictures: Mapping[str, bytes] = field(repr=False)
    """The encoded pictures by their SHA-256. `request` shares their bytes."""
    request_id: str | None = None
    """The id that makes the request safe to repeat; None if the client has chosen none."""
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL
    """The fate of the job when its last follower disconnects."""

    @property
    def digest(self) -> str:
        """The SHA-256 of the document, which tells this request from others with the same `request_id`."""
        return hashlib.sha256(self.document).hexdigest()


ReadRequest = Callable[[FindPicture], StoredRequest]
"""Reads what a client has sent, which may take long; raises InvalidRequestError or UnknownPictureError."""
