from types import SimpleNamespace
from typing import Any

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.objective.losses import LossKind, Term
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.jobs import events
from nst_service.jobs.log import LoggedEvent
from nst_service.lifecycle import StopReason
from nst_service.rpc.translate.events import estimate_to_proto, event_to_proto

from tests.jobs.builders import make_result

_MODEL: Any = SimpleNamespace(weights_id="caffe", weights_sha256="00ff")
_ESTIMATE = events.CostEstimate(seconds=1.0, queue_seconds=2.0, peak_memory_bytes=3, tile_size=4, reduced_from=5)
_ACCEPTED = events.Accepted(
    job_id="job",
    options=TransferOptions().completed(),
    output=OutputOptions(),
    width=8,
    height=6,
    estimate=_ESTIMATE,
)
_TERMS = {Term(LossKind.STYLE, "relu1_1"): 0.5}
_EVENTS = {
    "accepted": _ACCEPTED,
    "queued": events.Queued(position=1, eta_seconds=2.0),
    "started": events.Started(device="cpu", queued_seconds=1.0),
    "preparing": events.Preparing(scale=1, scales=2, part=3, parts=4),
    "reduced": events.Reduced(width=8, height=6),
    "progress": events.Progress(
        scale=1,
        scales=2,
        iteration=3,
        total_iterations=4,
        total_loss=5.0,
        terms=_TERMS,
        elapsed_seconds=6.0,
        eta_seconds=7.0,
    ),
    "preview": events.Preview(iteration=1, media_type="image/jpeg", width=8, height=6, data=b"preview"),
    "result_header": make_result().header,
    "result_chunk": events.ResultChunk(offset=1, data=memoryview(b"chunk")),
    "completed": make_result(StopReason.DEADLINE).completed,
}


def test_there_is_an_event_of_every_kind():
    assert _EVENTS.keys() == {field.name for field in pb.JobEvent.DESCRIPTOR.oneofs_by_name["event"].fields}


@pytest.mark.parametrize("name", list(_EVENTS))
def test_an_event_is_translated_to_the_message_of_its_kind(name: str):
    message = event_to_proto(LoggedEvent(7, _EVENTS[name]), _MODEL)
    assert message.sequence == 7
    assert message.WhichOneof("event") == name


@pytest.mark.parametrize("name", ["queued", "started", "preparing", "reduced", "preview", "result_chunk"])
def test_an_event_has_every_field_of_its_message(name: str):
    event, message = _EVENTS[name], getattr(event_to_proto(LoggedEvent(7, _EVENTS[name]), _MODEL), name)
    for field in message.DESCRIPTOR.fields:
        assert getattr(message, field.name) == getattr(event, field.name)


def test_progress_has_its_loss_terms():
    (term,) = event_to_proto(LoggedEvent(7, _EVENTS["progress"]), _MODEL).progress.terms
    assert (term.kind, term.layer, term.value) == (pb.LOSS_KIND_STYLE, "relu1_1", 0.5)


def test_the_first_and_the_last_event_name_the_weights():
    first, last = (event_to_proto(LoggedEvent(7, _EVENTS[name]), _MODEL) for name in ("accepted", "completed"))
    assert first.accepted.weights == last.completed.weights == pb.Weights(id="caffe", sha256="00ff")
    assert last.completed.stop_reason == pb.STOP_REASON_DEADLINE


def test_an_event_of_the_store_is_as_it_was_serialised():
    message = event_to_proto(LoggedEvent(7, _EVENTS["started"]), _MODEL)
    stored = events.SerializedEvent(message.SerializeToString())
    assert event_to_proto(LoggedEvent(7, stored), _MODEL) == message


def test_an_estimate_is_the_first_event_without_a_job():
    accepted = event_to_proto(LoggedEvent(1, _ACCEPTED), _MODEL).accepted
    estimate = estimate_to_proto(_ACCEPTED)
    for field in estimate.DESCRIPTOR.fields:
        assert getattr(estimate, field.name) == getattr(accepted, field.name)
