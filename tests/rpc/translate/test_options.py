from types import SimpleNamespace
from typing import Any

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.choices import Preset
from nst_service.engine.options import TransferOptions
from nst_service.rpc.codec import stored_request_from_proto
from nst_service.rpc.translate.options import limits_to_proto, options_to_proto, weights_to_proto

from tests.jobs.builders import DURABILITY, LIMITS


@pytest.mark.parametrize("preset", list(Preset))
def test_the_options_of_a_preset_come_back_from_their_echo(request_: pb.StylizeRequest, preset: Preset):
    options = TransferOptions.from_preset(preset).completed()
    echo = pb.StylizeRequest(content=request_.content, styles=request_.styles, options=options_to_proto(options))
    assert stored_request_from_proto(echo, lambda _: None).request.options == options


def test_every_limit_is_translated():
    limits = limits_to_proto(LIMITS, DURABILITY, max_request_bytes=1, max_queued_jobs=2)
    assert [field.name for field, _ in limits.ListFields()] == [field.name for field in pb.Limits.DESCRIPTOR.fields]


def test_weights_are_named_by_their_id_and_checksum():
    model: Any = SimpleNamespace(weights_id="caffe", weights_sha256="00ff")
    assert weights_to_proto(model) == pb.Weights(id="caffe", sha256="00ff")
