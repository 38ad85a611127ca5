"""The serialisation of what jobs store, in messages of the contract."""

import hashlib
from collections.abc import Iterable, Iterator

from google.protobuf.message import Message
from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.errors import JobError, UnknownPictureError
from nst_service.jobs.events import Completed, ResultHeader
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.stored_request import FindPicture, StoredRequest
from nst_service.rpc.status import status_of
from nst_service.rpc.translate.events import completed_to_proto, event_to_proto, header_to_proto
from nst_service.rpc.translate.jobs import failure_to_proto
from nst_service.rpc.translate.requests import disconnect_policy_from_proto, request_from_proto


class ProtoCodec:
    """Implements `jobs.codec.Codec` with protobuf."""

    def __init__(self, model: Vgg19):
        """Make a codec for jobs that run on a model."""
        self._model = model

    def request(self, document: bytes, accepted_event: bytes, find_picture: FindPicture) -> TransferRequest:
        """Parse the document of a stored request; see `jobs.codec.Codec.request`."""
        request = pb.StylizeRequest.FromString(document)
        accepted = pb.JobEvent.FromString(accepted_event).accepted
        request.options.CopyFrom(accepted.options)
        if accepted.estimate.reduced_from:
            request.options.image_size = accepted.estimate.reduced_from
        return request_from_proto(request, _take_pictures(request, find_picture))

    def event(self, logged: LoggedEvent) -> bytes:
        """Serialise an event as a JobEvent."""
        return event_to_proto(logged, self._model).SerializeToString()

    def result_size(self, event: bytes) -> Size | None:
        """Return the size of the result in a JobEvent; None if the event has none."""
        message = pb.JobEvent.FromString(event)
        match message.WhichOneof("event"):
            case "accepted":
                return Size(message.accepted.width, message.accepted.height)
            case "reduced":
                return Size(message.reduced.width, message.reduced.height)
            case _:
                return None

    def success(self, header: ResultHeader, completed: Completed) -> bytes:
        """Serialise the outcome as a Job without its other fields."""
        job = pb.Job(result=header_to_proto(header), completed=completed_to_proto(completed, self._model))
        return job.SerializeToString()

    def failure(self, error: JobError) -> bytes:
        """Serialise the outcome as a Job without its other fields."""
        return pb.Job(failure=failure_to_proto(status_of(error))).SerializeToString()


def stored_request_from_proto(request: pb.StylizeRequest, find_picture: FindPicture) -> StoredRequest:
    """Translate a request into the form that is stored. In the request, each picture is replaced by its SHA-256.

    Each picture is copied out of the message once and hashed once. The parts of the result share its bytes.

    Raises:
        UnknownPictureError: the owner has no picture with a SHA-256 that the request names.
        InvalidRequestError: as in `request_from_proto`.
    """
    pictures = _take_pictures(request, find_picture)
    translated = request_from_proto(request, pictures)
    document = pb.StylizeRequest()
    document.CopyFrom(request)
    # Both are stored beside the document, and its digest must not depend on them.
    document.ClearField("request_id")
    document.ClearField("disconnect_policy")
    return StoredRequest(
        request=translated,
        document=document.SerializeToString(deterministic=True),
        pictures=pictures,
        request_id=request.request_id or None,
        disconnect_policy=disconnect_policy_from_proto(request),
    )


def named_pictures(request: pb.StylizeRequest) -> frozenset[str]:
    """Return the SHA-256 of the pictures that a request names instead of sending them."""
    return frozenset(picture.sha256 for picture in _pictures(request) if picture.WhichOneof("source") == "sha256")


def _take_pictures(request: pb.StylizeRequest, find_picture: FindPicture) -> dict[str, bytes]:
    """Replace every picture of a request by its SHA-256, and return the pictures by their SHA-256.

    Raises:
        UnknownPictureError: the owner has no picture with a SHA-256 that the request names.
    """
    pictures: dict[str, bytes] = {}
    found: set[str] = set()
    for picture in _pictures(request):
        if picture.WhichOneof("source") == "sha256":
            if picture.sha256 in found:
                continue
            found.add(picture.sha256)
            data = find_picture(picture.sha256)
            if data is None:
                raise UnknownPictureError(picture.sha256)
        else:
            # Every access to `data` copies the picture.
            data = picture.data
            picture.sha256 = hashlib.sha256(data).hexdigest()
        pictures.setdefault(picture.sha256, data)
    return pictures


def _pictures(request: pb.StylizeRequest) -> Iterator[pb.Picture]:
    """Yield every picture of a request that has data or a SHA-256."""
    yield from _set_pictures(request, ("content", "content_mask", "init_picture", "reference", "reference_mask"))
    for style in request.styles:
        yield from _set_pictures(style, ("picture", "mask"))


def _set_pictures(message: Message, names: Iterable[str]) -> Iterator[pb.Picture]:
    for name in names:
        if message.HasField(name) and getattr(message, name).HasField("source"):
            yield getattr(message, name)
