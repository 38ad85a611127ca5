import inspect
import pydoc

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client import AsyncStyleTransferClient, EstimateFields, StyleTransferClient, StylizeFields
from nst_client.translate import request_to_proto

CLIENTS = (StyleTransferClient, AsyncStyleTransferClient)


def test_the_fields_are_those_of_the_contract():
    names = {field.name for field in pb.StylizeRequest.DESCRIPTOR.fields}
    assert names - {"disconnect_policy"} | {"keep_running"} == {"content", "styles", *StylizeFields.__annotations__}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("method", ["stylize", "stream"])
def test_help_names_every_field_of_a_request(client, method):
    text = pydoc.render_doc(getattr(client, method), renderer=pydoc.plaintext)
    assert [name for name in StylizeFields.__annotations__ if f" {name}: " not in text] == []
    assert "keep_running: bool = False" in text


@pytest.mark.parametrize("client", CLIENTS)
def test_help_names_every_field_of_an_estimate_and_no_other(client):
    parameters = inspect.signature(client.estimate).parameters
    assert list(parameters) == ["self", "content", "styles", *EstimateFields.__annotations__, "timeout"]
    assert {parameters[name].kind for name in EstimateFields.__annotations__} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.fixture
def refused():
    def refused(call, *arguments, **fields):
        with pytest.raises(TypeError) as caught:
            call(*arguments, **fields)
        return str(caught.value)

    return refused


@pytest.mark.parametrize("method", ["stylize", "stream", "estimate"])
def test_a_field_that_does_not_exist_is_named_with_those_that_do(client, servicer, refused, method):
    message = refused(getattr(client, method), b"content", b"style", options=None, colour="red")
    problem, accepted = message.split(", accepted are ")
    assert problem == f"StyleTransferClient.{method}() got an unexpected keyword argument 'colour'"
    assert {"content", "styles", *EstimateFields.__annotations__, "timeout"} <= set(accepted.split(", "))
    assert servicer.requests == []


def test_a_call_names_the_arguments_of_its_own(client, refused):
    assert refused(client.stylize, b"content", b"style", on_events=print).endswith("keep_running, timeout, on_event")
    assert refused(client.stream, b"content", b"style", on_event=print).endswith("keep_running, timeout")


@pytest.mark.parametrize("name", ["request_id", "keep_running"])
def test_an_estimate_takes_no_field_that_is_about_a_job(client, refused, name):
    assert f"unexpected keyword argument {name!r}" in refused(client.estimate, b"content", b"style", **{name: "1"})


async def test_a_field_that_does_not_exist_is_named_by_the_asynchronous_client_too(async_client, servicer, refused):
    assert "'colour', accepted are content, styles" in refused(async_client.stream, b"content", b"style", colour="red")
    for call in (async_client.stylize, async_client.estimate):
        with pytest.raises(TypeError, match="'colour', accepted are content, styles"):
            await call(b"content", b"style", colour="red")
    assert servicer.requests == []


def test_a_request_is_not_built_of_a_field_that_does_not_exist(refused):
    assert "request_to_proto() got an unexpected keyword argument 'colour'" in refused(
        request_to_proto, b"content", b"style", colour="red"
    )


def test_the_pictures_may_be_named_too(client, servicer, script):
    servicer.attempts = [script.job()]
    client.stylize(styles=b"style", content=b"content", reference=b"reference", request_id=None)
    (request,) = servicer.requests
    assert (request.content.data, request.reference.data) == (b"content", b"reference")
    assert servicer.request_ids[0] != ""
