import dataclasses
import enum
import types
import typing
from datetime import UTC, datetime

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client import events, info, options
from nst_client.errors import InvalidRequestError
from nst_client.options import Init, Optimizer, OutputOptions, PictureFormat, Style, TransferOptions
from nst_client.translate import (
    event_from_proto,
    info_from_proto,
    job_from_proto,
    list_to_proto,
    options_from_proto,
    request_to_proto,
)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *((getattr(events, message.DESCRIPTOR.name), message) for message in (
            pb.Accepted, pb.Queued, pb.Started, pb.Preparing, pb.Reduced, pb.Progress, pb.Preview, pb.Completed,
            pb.CostEstimate, pb.LossTerm, pb.Timings, pb.Weights,
        )),
        (info.Limits, pb.Limits),
        (info.Job, pb.Job),
        (info.JobFailure, pb.JobFailure),
        (info.ResultHeader, pb.ResultHeader),
        (info.ServerInfo, pb.GetServerInfoResponse),
        (options.TransferOptions, pb.TransferOptions),
        (options.OutputOptions, pb.OutputOptions),
        (options.Style, pb.Style),
    ],
)  # fmt: skip
def test_a_dataclass_has_every_field_of_its_message(kind, message):
    names = {field.name for field in dataclasses.fields(kind)} - {"sequence"}
    # What stands in google.rpc details, its reason tells.
    assert names == {field.name for field in message.DESCRIPTOR.fields} - {"details"}


def test_every_event_of_the_contract_is_known_but_for_the_parts_of_the_picture():
    kinds = {field.name: field.message_type for field in pb.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    for name in kinds.keys() - {"result_header", "result_chunk"}:
        message = pb.JobEvent(sequence=1)
        getattr(message, name).SetInParent()
        event = event_from_proto(message)
        assert type(event).__name__ == kinds[name].name


@pytest.mark.parametrize(
    ("kind", "wrapper"),
    [
        (options.Optimizer, pb.Optimizer),
        (options.Init, pb.Init),
        (options.PictureFormat, pb.PictureFormat),
        (options.Preset, pb.Preset),
        (options.StyleLoss, pb.StyleLoss),
        (options.Pooling, pb.Pooling),
        (options.Padding, pb.Padding),
        (options.ColorMode, pb.ColorMode),
        (events.LossKind, pb.LossKind),
        (events.StopReason, pb.StopReason),
        (info.JobState, pb.JobState),
        (info.DisconnectPolicy, pb.DisconnectPolicy),
    ],
)
def test_an_enum_has_every_value_of_the_contract(kind, wrapper):
    first, *names = wrapper.keys()
    prefix = first.removesuffix("UNSPECIFIED")
    assert {name.removeprefix(prefix).lower() for name in names} == set(kind) - {"unknown"}


def test_a_request_without_options_leaves_every_default_to_the_server():
    request = request_to_proto(b"content", b"style", options=TransferOptions(), output=OutputOptions())
    assert not request.HasField("init_picture")
    assert request.options.ByteSize() == 0
    assert request.output.ByteSize() == 0
    assert not request.styles[0].HasField("weight")
    assert not request.styles[0].HasField("scale")


def option_values(kind):
    """Return a value for each field of a dataclass of options, by its name."""
    hints = typing.get_type_hints(kind)
    return {field.name: option_value(hints[field.name]) for field in dataclasses.fields(kind)}


def option_value(hint):
    if hint == options.Layers:
        return {"relu4_2": 0.5}
    match typing.get_args(hint):
        case (type() as plain, types.NoneType):
            return list(plain)[-1] if issubclass(plain, enum.Enum) else {bool: False, int: 7, float: 0.5}[plain]
        case (type(),):
            return (20, 10)
    raise TypeError(hint)


@pytest.mark.parametrize(
    ("kind", "argument", "name", "value"),
    [
        pytest.param(kind, argument, name, value, id=f"{argument}.{name}")
        for kind, argument in ((TransferOptions, "options"), (OutputOptions, "output"))
        for name, value in option_values(kind).items()
    ],
)
def test_every_option_reaches_the_request(kind, argument, name, value):
    request = request_to_proto(b"content", b"style", **{argument: kind(**{name: value})})
    message = getattr(request, argument)
    ((descriptor, sent),) = message.ListFields()
    assert descriptor.name == name
    if descriptor.enum_type:
        assert descriptor.enum_type.values_by_number[sent].name.endswith(f"_{value.upper()}")
    elif isinstance(value, dict):
        assert list(sent) == [pb.LayerWeight(layer="relu4_2", weight=0.5)]
    else:
        assert (tuple(sent) if isinstance(value, tuple) else sent) == value


def test_options_reach_the_request_together_and_come_back_from_it():
    chosen = TransferOptions(
        content_weight=1.0,
        style_weight=2.0,
        tv_weight=0.0,
        content_layers={"relu4_2": 0.5},
        style_layers=["relu1_1", "relu2_1"],
        iterations=10,
        optimizer=Optimizer.ADAM,
        learning_rate=0.1,
        lbfgs_history=7,
        init=Init.RANDOM,
        image_size=0,
        min_image_size=256,
        seed=2**63 - 1,
        preview_every=5,
        preview_size=128,
    )
    request = request_to_proto(
        b"content", b"style", options=chosen, output=OutputOptions(format=PictureFormat.JPEG, quality=70)
    )
    assert request.options == pb.TransferOptions(
        content_weight=1.0,
        style_weight=2.0,
        tv_weight=0.0,
        content_layers=[pb.LayerWeight(layer="relu4_2", weight=0.5)],
        style_layers=[pb.LayerWeight(layer="relu1_1"), pb.LayerWeight(layer="relu2_1")],
        iterations=10,
        optimizer=pb.OPTIMIZER_ADAM,
        learning_rate=0.1,
        lbfgs_history=7,
        init=pb.INIT_RANDOM,
        image_size=0,
        min_image_size=256,
        seed=2**63 - 1,
        preview_every=5,
        preview_size=128,
    )
    assert request.output == pb.OutputOptions(format=pb.PICTURE_FORMAT_JPEG, quality=70)
    back = options_from_proto(request.options)
    assert back == dataclasses.replace(chosen, style_layers={"relu1_1": None, "relu2_1": None})


def test_every_option_comes_back_from_its_message():
    chosen = TransferOptions(**option_values(TransferOptions))
    assert options_from_proto(request_to_proto(b"content", b"style", options=chosen).options) == chosen


def test_the_scripted_job_has_every_kind_of_event(script):
    kinds = {field.name for field in pb.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert {event.WhichOneof("event") for event in script.job()} == kinds


@pytest.mark.parametrize("styles", [b"one", [b"one"], Style(b"one"), [Style(b"one")], (Style(b"one"),)])
def test_one_style_may_be_given_in_any_form(styles):
    assert [style.picture.data for style in request_to_proto(b"content", styles).styles] == [b"one"]


def test_pictures_are_bytes_or_files(pictures):
    content, style, other = pictures
    request = request_to_proto(content, [str(style), Style(other, weight=2.0, scale=0.5)], init_picture=b"start")
    assert request.content.data == b"content.jpg"
    assert [style.picture.data for style in request.styles] == [b"style.jpg", b"other.jpg"]
    assert (request.styles[1].weight, request.styles[1].scale) == (2.0, 0.5)
    assert request.init_picture.data == b"start"


def refused(field, *arguments, **options):
    with pytest.raises(InvalidRequestError) as caught:
        request_to_proto(*arguments, **options)
    (violation,) = caught.value.violations
    assert violation.field == field
    return violation.description


def test_a_missing_file_is_named_with_its_field(tmp_path):
    missing = tmp_path / "none.jpg"
    description = refused("styles[1].picture", b"content", [b"style", missing])
    assert str(missing) in description
    assert "No such file" in description


def test_a_directory_is_no_picture(tmp_path):
    assert "directory" in refused("content", tmp_path, b"style")


def test_a_path_that_no_file_can_have_is_refused():
    assert "null" in refused("content", "a\0b", b"style")


def test_something_that_is_no_picture_is_refused():
    assert "is a int, accepted are the bytes of an encoded picture or a path" in refused("content", 3, b"style")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("iterations", 2.5, "a whole number of 32 bits"),
        ("iterations", 2**40, "a whole number of 32 bits"),
        ("seed", 2**63, "a whole number of 64 bits"),
        ("content_weight", "much", "a number"),
        ("optimizer", "sgd", "lbfgs, adam"),
        ("init", 3, "content, random, style, picture"),
        ("style_layers", "relu1_1", "names in a sequence or a mapping"),
        ("style_layers", [4], "names"),
    ],
)
def test_a_value_that_its_field_cannot_hold_is_refused(name, value, accepted):
    description = refused(f"options.{name}", b"content", b"style", options=TransferOptions(**{name: value}))
    assert repr(value).strip("[]") in description
    assert description.endswith(accepted)


def test_a_layer_weight_that_is_no_number_is_refused():
    options = TransferOptions(style_layers={"relu1_1": "much"})
    assert "'much'" in refused("options.style_layers['relu1_1'].weight", b"content", b"style", options=options)


def test_an_event_is_translated_whole(script):
    accepted = event_from_proto(script.accepted())
    assert accepted == events.Accepted(
        sequence=1,
        job_id="job-1",
        options=TransferOptions(
            iterations=20, optimizer=Optimizer.ADAM, content_layers={"relu4_2": 0.5, "relu3_1": None}, style_layers={}
        ),
        output=OutputOptions(format=PictureFormat.WEBP, quality=80),
        weights=events.Weights(id="caffe", sha256="aa"),
        width=64,
        height=48,
        estimate=events.CostEstimate(
            seconds=2.5, queue_seconds=1.0, peak_memory_bytes=4096, tile_size=0, reduced_from=0
        ),
    )
    assert event_from_proto(script.reduced()) == events.Reduced(sequence=2, width=32, height=24)
    assert event_from_proto(script.completed()) == events.Completed(
        sequence=3,
        stop_reason=events.StopReason.ITERATIONS,
        iterations=20,
        total_loss=1.5,
        terms=(events.LossTerm(kind=events.LossKind.TOTAL_VARIATION, layer="", value=1.5),),
        timings=events.Timings(queued_seconds=1, targets_seconds=2, optimize_seconds=3, encode_seconds=4),
        weights=events.Weights(id="caffe", sha256="aa"),
    )


def test_values_that_a_later_server_may_send_are_unknown_instead_of_an_error(script):
    completed = script.completed(stop_reason=99)
    completed.completed.terms[0].kind = 99
    event = event_from_proto(completed)
    assert event.stop_reason is events.StopReason.UNKNOWN
    assert event.terms[0].kind is events.LossKind.UNKNOWN
    assert options_from_proto(pb.TransferOptions(optimizer=99)).optimizer is None


def test_the_description_of_a_server_is_translated_whole():
    message = pb.GetServerInfoResponse(
        version="1.2.3",
        weights=pb.Weights(id="caffe", sha256="aa"),
        devices=["cpu"],
        default_options=pb.TransferOptions(iterations=500),
        presets=[pb.TransferOptions(iterations=100)],
        default_output=pb.OutputOptions(quality=95),
        layers=["conv1_1"],
        input_media_types=["image/png"],
        limits=pb.Limits(
            max_request_bytes=1,
            max_input_pixels=2,
            max_image_size=3,
            max_iterations=4,
            max_styles=5,
            max_queued_jobs=6,
            reattach_seconds=30,
            retention_seconds=86400,
        ),
        queued_jobs=7,
        running_jobs=8,
    )
    assert info_from_proto(message) == info.ServerInfo(
        version="1.2.3",
        weights=events.Weights(id="caffe", sha256="aa"),
        devices=("cpu",),
        default_options=TransferOptions(iterations=500, content_layers={}, style_layers={}),
        presets=(TransferOptions(iterations=100, content_layers={}, style_layers={}),),
        default_output=OutputOptions(quality=95),
        layers=("conv1_1",),
        input_media_types=("image/png",),
        limits=info.Limits(
            max_request_bytes=1,
            max_input_pixels=2,
            max_image_size=3,
            max_iterations=4,
            max_styles=5,
            max_queued_jobs=6,
            reattach_seconds=30,
            retention_seconds=86400,
        ),
        queued_jobs=7,
        running_jobs=8,
    )


def test_the_description_of_a_job_is_translated_whole(description, script):
    job = job_from_proto(description(request_id="mine"))
    assert (job.job_id, job.request_id, job.state) == ("job-1", "mine", info.JobState.SUCCEEDED)
    assert job.disconnect_policy is info.DisconnectPolicy.CANCEL
    assert job.create_time == datetime(2026, 11, 24, 18, 0, tzinfo=UTC)
    assert job.end_time == datetime(2026, 11, 24, 18, 1, tzinfo=UTC)
    assert job.accepted == dataclasses.replace(event_from_proto(script.accepted()), sequence=0)
    assert job.completed == dataclasses.replace(event_from_proto(script.completed()), sequence=0)
    assert (job.result.media_type, job.result.size_bytes) == ("image/png", 11)
    assert (job.progress, job.failure) == (None, None)


def test_a_job_that_has_not_ended_has_neither_end_nor_result(description):
    job = job_from_proto(description(state=pb.JOB_STATE_RUNNING))
    assert job.progress.iteration == 10
    assert (job.end_time, job.result, job.completed, job.failure) == (None, None, None, None)


def test_the_failure_of_a_job_is_a_status(description):
    failure = pb.JobFailure(code=13, message="not finite", reason="LOSS_NOT_FINITE")
    job = job_from_proto(description(state=pb.JOB_STATE_FAILED, failure=failure))
    assert job.failure == info.JobFailure(code=grpc.StatusCode.INTERNAL, message="not finite", reason="LOSS_NOT_FINITE")


def test_a_job_of_a_later_server_is_of_unknown_state(description):
    job = job_from_proto(description(state=99, failure=pb.JobFailure(code=99)))
    assert (job.state, job.failure.code) == (info.JobState.UNKNOWN, grpc.StatusCode.UNKNOWN)


def test_a_request_says_its_id_and_whether_the_job_goes_on():
    request = request_to_proto(b"content", b"style", request_id="mine", keep_running=True)
    assert (request.request_id, request.disconnect_policy) == ("mine", pb.DISCONNECT_POLICY_KEEP_RUNNING)
    request = request_to_proto(b"content", b"style")
    assert (request.request_id, request.disconnect_policy) == ("", pb.DISCONNECT_POLICY_UNSPECIFIED)


@pytest.mark.parametrize(("request_id", "description"), [("", "is empty"), (7, "is 7, accepted is text")])
def test_what_is_no_request_id_is_refused(request_id, description):
    assert description in refused("request_id", b"content", b"style", request_id=request_id)


def test_a_list_is_of_the_states_that_exist():
    request = list_to_proto([info.JobState.RUNNING, "failed"], 10)
    assert request == pb.ListJobsRequest(page_size=10, states=[pb.JOB_STATE_RUNNING, pb.JOB_STATE_FAILED])
    with pytest.raises(InvalidRequestError, match="accepted are queued, running, succeeded, cancelled, failed"):
        list_to_proto(["unknown"], None)
