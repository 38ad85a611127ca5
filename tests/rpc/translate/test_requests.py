import hashlib

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.choices import Init, Pooling, Preset
from nst_service.engine.errors import InvalidRequestError
from nst_service.engine.options import DEFAULT_PRESET, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest
from nst_service.lifecycle import JobState
from nst_service.rpc.translate.requests import (
    JobRequest,
    check_job_name,
    disconnect_policy_from_proto,
    page_from_proto,
    request_from_proto,
)
from nst_service.store.records import DisconnectPolicy

_PICTURES = {hashlib.sha256(data).hexdigest(): data for data in (b"content", b"style", b"mask")}


def picture(data: bytes) -> pb.Picture:
    return pb.Picture(sha256=hashlib.sha256(data).hexdigest())


def request(**fields) -> pb.StylizeRequest:
    defaults = {"content": picture(b"content"), "styles": [pb.Style(picture=picture(b"style"))]}
    return pb.StylizeRequest(**defaults | fields)


def translated(**fields) -> TransferRequest:
    return request_from_proto(request(**fields), _PICTURES)


def violations(**fields) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        translated(**fields)
    return {violation.field: violation.description for violation in caught.value.violations}


def test_a_field_that_is_not_set_gets_its_default():
    plain = translated()
    assert plain == TransferRequest(
        content=b"content",
        styles=(StyleInput(data=b"style"),),
        options=TransferOptions.from_preset(DEFAULT_PRESET),
    )
    assert disconnect_policy_from_proto(request()) is DisconnectPolicy.CANCEL


def test_every_picture_is_found_by_its_sha256():
    styles = [pb.Style(picture=picture(b"style"), mask=picture(b"mask"), weight=2.0)]
    found = translated(content_mask=picture(b"mask"), reference=picture(b"content"), styles=styles)
    assert (found.content, found.content_mask, found.reference, found.init_picture) == (
        b"content",
        b"mask",
        b"content",
        None,
    )
    (style,) = found.styles
    assert (style.data, style.mask, style.options.weight) == (b"style", b"mask", 2.0)


def test_options_that_are_set_override_those_of_the_preset():
    options = translated(
        options=pb.TransferOptions(
            preset=pb.PRESET_REFERENCE,
            pooling=pb.POOLING_MAX,
            scale_iterations=[3, 2],
            style_layers=[pb.LayerWeight(layer="relu1_1"), pb.LayerWeight(layer="relu2_1", weight=0.0)],
        )
    ).options
    assert options.preset is Preset.REFERENCE
    assert options.pooling is Pooling.MAX
    assert options.scale_iterations == (3, 2)
    assert options.style_layers == {"relu1_1": 1.0, "relu2_1": 0.0}


def test_an_initial_picture_is_where_the_optimisation_starts():
    assert translated(init_picture=picture(b"content")).options.init is Init.PICTURE
    other = translated(init_picture=picture(b"content"), options=pb.TransferOptions(init=pb.INIT_RANDOM))
    assert other.options.init is Init.RANDOM


def test_every_field_that_cannot_be_translated_is_named():
    found = violations(
        content=pb.Picture(),
        styles=[pb.Style(picture=picture(b"style")), pb.Style(mask=pb.Picture())],
        options=pb.TransferOptions(
            pooling=9, content_layers=[pb.LayerWeight(layer="relu1_1"), pb.LayerWeight(layer="relu1_1")]
        ),
        output=pb.OutputOptions(format=9),
        disconnect_policy=9,
        request_id="with space",
    )
    assert list(found) == [
        "content",
        "styles[1].picture",
        "styles[1].mask",
        "options.pooling",
        "options.content_layers",
        "output.format",
        "request_id",
        "disconnect_policy",
    ]
    assert found["options.content_layers"] == "names layer 'relu1_1' more than once"
    assert found["content"] == "is not set; an encoded picture or its SHA-256 is required"


def test_only_a_job_with_a_request_id_can_run_without_a_follower():
    policy = pb.DISCONNECT_POLICY_KEEP_RUNNING
    assert violations(disconnect_policy=policy).keys() == {"disconnect_policy"}
    named = request(disconnect_policy=policy, request_id="one")
    request_from_proto(named, _PICTURES)
    assert disconnect_policy_from_proto(named) is DisconnectPolicy.KEEP_RUNNING


@pytest.mark.parametrize("kind", [pb.WatchJobRequest, pb.GetJobRequest, pb.CancelJobRequest])
def test_a_job_is_named_by_one_of_its_ids(kind: type[JobRequest]):
    check_job_name(kind(job_id="job"))
    check_job_name(kind(request_id="request"))
    with pytest.raises(InvalidRequestError, match="request_id: is set together with job_id"):
        check_job_name(kind(job_id="job", request_id="request"))


def test_a_page_has_defaults():
    page = page_from_proto(pb.ListJobsRequest())
    assert (page.size, page.states, page.before) == (50, (), None)


def test_a_page_goes_on_after_the_last_job_of_the_previous_one():
    page = page_from_proto(pb.ListJobsRequest(page_size=3, page_token="12", states=[pb.JOB_STATE_RUNNING]))
    assert (page.size, page.states, page.before) == (3, (JobState.RUNNING,), 12)


def test_every_violation_of_a_page_is_named():
    with pytest.raises(InvalidRequestError) as caught:
        page_from_proto(pb.ListJobsRequest(page_size=1001, page_token="-1", states=[pb.JOB_STATE_RUNNING, 0, 9]))
    assert [violation.field for violation in caught.value.violations] == [
        "page_size",
        "page_token",
        "states[1]",
        "states[2]",
    ]
