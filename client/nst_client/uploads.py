"""Requests, whose pictures travel only once: again they go by their SHA-256, as long as the server has them."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from nst.v1 import style_transfer_pb2 as pb

_LEAST_BYTES = 16 * 1024
"""A picture that is not larger than this is sent again: that costs less than asking for it in vain."""
_MOST_DIGESTS = 1024
"""To be remembered."""


class SentPictures:
    """The digests of the pictures that a server was sent last. Any thread may use it."""

    def __init__(self, most: int = _MOST_DIGESTS):
        self._digests: OrderedDict[str, None] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def __contains__(self, digest: str) -> bool:
        with self._lock:
            return digest in self._digests

    def add(self, digests: Iterable[str]) -> None:
        """Remember pictures; those that were not sent for longest are forgotten where there are too many."""
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
    """One request over all the times it is sent."""

    def __init__(self, build: Callable[[], pb.StylizeRequest], sent: SentPictures):
        """Take a request.

        Args:
            build: returns it, with the bytes of every picture; called once, when it is first needed.
            sent: what the server has, as far as is known; kept up to date.
        """
        self._build = build
        self._sent = sent
        self._request: pb.StylizeRequest | None = None
        self._pictures: list[tuple[pb.Picture, str]] = []
        """Those that may go by their digests, with these."""
        self._left_out: dict[str, bytes] = {}
        """What goes by its digest now."""
        self._is_whole = False
        """Whether everything must be sent, whatever the server is said to have."""

    def message(self) -> pb.StylizeRequest:
        """Return the request as it is to be sent now; the next call may change it.

        Raises:
            InvalidRequestError: it cannot be built.
        """
        if self._request is None:
            self._request = self._build()
            self._pictures = [
                (picture, hashlib.sha256(data).hexdigest())
                for picture in _pictures(self._request)
                if len(data := picture.data) > _LEAST_BYTES
            ]
        for picture, digest in self._pictures:
            if not self._is_whole and picture.HasField("data") and digest in self._sent:
                self._left_out[digest] = picture.data
                picture.sha256 = digest
        return self._request

    @property
    def request_id(self) -> str:
        """Of the request; empty where it has not been needed yet."""
        return "" if self._request is None else self._request.request_id

    def accepted(self) -> None:
        """Take that the server keeps the request, and with it every picture."""
        self._sent.add(digest for _, digest in self._pictures)

    def restore(self) -> bool:
        """Put every picture back, for a server that misses one.

        Returns:
            Whether the request is another one now.
        """
        self._is_whole = True
        # A server that lost one has probably lost them all, and each would be one more call in vain.
        self._sent.forget(digest for _, digest in self._pictures)
        for picture, digest in self._pictures:
            if picture.HasField("sha256"):
                picture.data = self._left_out[digest]
        is_another = bool(self._left_out)
        self._left_out.clear()
        return is_another


def _pictures(request: pb.StylizeRequest) -> Iterator[pb.Picture]:
    """Yield every picture of a request; those that are not set are empty."""
    yield request.content
    for style in request.styles:
        yield style.picture
        yield style.mask
    yield from (request.init_picture, request.content_mask, request.reference, request.reference_mask)
