"""The way of a request from the message to its stored form."""

import gc
import hashlib
import tracemalloc
from collections.abc import Callable

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.choices import Preset, StyleStatisticKind
from nst_service.engine.network.vgg import Vgg19
from nst_service.jobs.errors import UnknownPictureError
from nst_service.rpc.codec import ProtoCodec, stored_request_from_proto

_DIGEST_OF_0_1_0 = "7e3bdf2df5d846f6b133d89198238108a34437ef28d531589d395f6d7f6b5364"
"""The digest that 0.1.0 stores for the request of `_request`."""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _request() -> pb.StylizeRequest:
    """Return a request with three different pictures in five places."""
    return pb.StylizeRequest(
        request_id="r",
        disconnect_policy=pb.DISCONNECT_POLICY_KEEP_RUNNING,
        content=pb.Picture(data=b"a photograph"),
        content_mask=pb.Picture(data=b"a mask"),
        styles=[
            pb.Style(picture=pb.Picture(data=b"a painting"), weight=2.0),
            pb.Style(picture=pb.Picture(data=b"a photograph"), mask=pb.Picture(data=b"a mask")),
        ],
        options=pb.TransferOptions(
            iterations=5, image_size=48, style_layers=[pb.LayerWeight(layer="relu1_1", weight=0.5)]
        ),
        output=pb.OutputOptions(quality=80),
    )


def _find_in(*pictures: bytes) -> Callable[[str], bytes | None]:
    return {_sha256(picture): picture for picture in pictures}.get


def test_a_request_has_the_digest_that_0_1_0_has_stored_for_it():
    assert stored_request_from_proto(_request(), _find_in()).digest == _DIGEST_OF_0_1_0


def test_a_request_whose_pictures_are_named_has_the_same_digest():
    request = _request()
    request.content.sha256 = _sha256(b"a photograph")
    request.styles[0].picture.sha256 = _sha256(b"a painting")
    stored = stored_request_from_proto(request, _find_in(b"a photograph", b"a painting"))
    assert stored.digest == _DIGEST_OF_0_1_0
    assert set(stored.pictures.values()) == {b"a photograph", b"a painting", b"a mask"}


def test_a_job_goes_on_with_the_options_it_was_accepted_with_whatever_its_preset_is_now(model: Vgg19):
    request = _request()
    request.options.Clear()
    stored = stored_request_from_proto(request, _find_in())
    options = pb.TransferOptions(
        preset=pb.PRESET_BALANCED, style_loss=pb.STYLE_LOSS_GRAM, style_weight=0.5, scales=2, scale_iterations=[3, 4]
    )
    options.iterations = 7
    accepted = pb.JobEvent(accepted=pb.Accepted(options=options))
    find = _find_in(*stored.pictures.values())
    again = ProtoCodec(model).request(stored.document, accepted.SerializeToString(), find)
    assert (again.options.preset, again.options.style_loss) == (Preset.BALANCED, StyleStatisticKind.GRAM)
    assert (again.options.style_weight, again.options.scale_iterations) == (0.5, (3, 4))


def test_a_reduced_job_goes_on_from_the_size_it_was_asked_for(model: Vgg19):
    stored = stored_request_from_proto(_request(), _find_in())
    accepted = pb.Accepted(
        options=pb.TransferOptions(image_size=40, min_image_size=32), estimate=pb.CostEstimate(reduced_from=48)
    )
    find = _find_in(*stored.pictures.values())
    again = ProtoCodec(model).request(stored.document, pb.JobEvent(accepted=accepted).SerializeToString(), find)
    assert (again.options.image_size, again.options.min_image_size) == (48, 32)


def test_a_picture_that_is_named_must_be_there_even_if_the_request_has_it_elsewhere():
    request = _request()
    request.styles[1].picture.sha256 = _sha256(b"a photograph")
    with pytest.raises(UnknownPictureError):
        stored_request_from_proto(request, _find_in())


def test_the_request_and_what_is_stored_of_it_share_the_bytes_of_each_picture():
    stored = stored_request_from_proto(_request(), _find_in())
    request = stored.request
    assert request.content is request.styles[1].data is stored.pictures[_sha256(b"a photograph")]
    assert request.content_mask is request.styles[1].mask is stored.pictures[_sha256(b"a mask")]
    assert request.styles[0].data is stored.pictures[_sha256(b"a painting")]
    assert len(stored.pictures) == 3


def test_each_picture_of_a_request_is_copied_out_of_its_message_once():
    size = 2**20
    request = _request()
    request.content.data, request.styles[0].picture.data = bytes(size), b"x" * size
    gc.collect()
    tracemalloc.start()
    try:
        stored = stored_request_from_proto(request, _find_in())
        copies = [trace.size for trace in tracemalloc.take_snapshot().traces if trace.size >= size]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(copies) == 2
    assert peak < 2.5 * size
    assert request.ByteSize() < 1000, "the message names its pictures"
    assert len(stored.request.content) == size
