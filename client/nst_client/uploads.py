"""Uploads: a picture travels once, and is named by its SHA-256 afterwards as long as the server has it."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from nst.v1 import style_transfer_pb2 as pb

_LEAST_BYTES = 16 * 1024
"""The size up to which a picture is always sent, since that costs less than a call in vain."""
_MOST_DIGESTS = 1024
"""The number of digests to remember."""


class SentPictures:
    """The digests of the latest pictures that a server received. Any thread may use it."""

    def __init__(self, most: int = _MOST_DIGESTS):
        self._digests: OrderedDict[str, None] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        with self._lock:
            return digest in self._digests

    def add(self, digests: Iterable[str]) -> None:
        """Remember pictures. If there are too many, the least recently sent ones are forgotten."""
        with self._lock:
            for digest in digests:
                self._digests[digest] = None
                self._digests.move_to_end(digest)
            while len(self._digests) > self._most:
                self._digests.popitem(last=False)

    def forget(self, digests: Iterable[str]) -> None:
        """Forget pictures that the server no longer has."""
        with self._lock:
            for digest in digests:
                self._digests.pop(digest, None)


class Upload:
    """A request that may be sent several times."""

    def __init__(self, build: Callable[[], pb.StylizeRequest], sent: SentPictures):
        """Prepare the upload.

        Args:
            build: a function that returns the request with the bytes of every picture. It is called once, when the
                request is first needed.
            sent: the pictures that the server is known to have. The upload keeps it up to date.
        """
        self._build = build
        self._sent = sent
        self._request: pb.StylizeRequest | None = None
        self._pictures: list[tuple[pb.Picture, str]] = []
        """The pictures that may be named by their digests, with these."""
        self._omitted: dict[str, bytes] = {}
        """The bytes of the pictures that are named by their digests now."""
        self._must_send_bytes = False
        """Whether every picture must be sent, whatever the server is known to have."""

    def message(self) -> pb.StylizeRequest:
        """Return the request as it is to be sent now. The next call may change it.

        Raises:
            InvalidRequestError: the request cannot be built.
        """
        if self._request is None:
            self._request = self._build()
            self._pictures = [
                (picture, hashlib.sha256(data).hexdigest())
                for picture in _pictures(self._request)
                if len(data := picture.data) > _LEAST_BYTES
            ]
        for picture, digest in self._pictures:
            if not self._must_send_bytes and picture.HasField("data") and digest in self._sent:
                self._omitted[digest] = picture.data
                picture.sha256 = digest
        return self._request

    @property
    def request_id(self) -> str:
        """The id of the request; empty before the request was needed."""
        return "" if self._request is None else self._request.request_id

    def accepted(self) -> None:
        """Note that the server has accepted the request, and with it every picture."""
        self._sent.add(digest for _, digest in self._pictures)

    def restore(self) -> bool:
        """Put the bytes of every picture back, because the server misses one.

        Returns:
            Whether this changed the request.
        """
        self._must_send_bytes = True
        # A server that lost one picture has probably lost them all, and each would cost another call in vain.
        self._sent.forget(digest for _, digest in self._pictures)
        for picture, digest in self._pictures:
            if picture.HasField("sha256"):
                picture.data = self._omitted[digest]
        is_another = bool(self._omitted)
        self._omitted.clear()
        return is_another


def _pictures(request: pb.StylizeRequest) -> Iterator[pb.Picture]:
    """Yield every picture of a request. A picture that is not set is empty."""
    yield request.content
    for style in request.styles:
        yield style.picture
        yield style.mask
    yield from (request.init_picture, request.content_mask, request.reference, request.reference_mask)
