"""What a client has asked for, in the form that can be kept."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nst_service.engine.spec import TransferRequest
from nst_service.store.records import DisconnectPolicy

FindPicture = Callable[[str], bytes | None]
"""Returns the picture with a SHA-256 that the caller has sent or received before; None where it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRequest:
    """A request, and all that is needed to read it once more after a restart."""

    request: TransferRequest
    document: bytes = field(repr=False)
    """The request as the contract has it, its pictures named by their SHA-256: equal for equal requests."""
    pictures: Mapping[str, bytes] = field(repr=False)
    """Those that the document names."""
    request_id: str | None = None
    """Makes the request safe to repeat; None where every request is another one."""
    disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL

    @property
    def digest(self) -> str:
        """Tells this request from others with the same `request_id`."""
        return hashlib.sha256(self.document).hexdigest()


ReadRequest = Callable[[FindPicture], StoredRequest]
"""Reads what a client has sent; it may take long, and raises InvalidRequestError or UnknownPictureError."""
