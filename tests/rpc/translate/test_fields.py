from enum import StrEnum
from typing import Any

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.choices import (
    ColorMode,
    Init,
    OptimizerKind,
    OutputFormat,
    Padding,
    Pooling,
    Preset,
    StyleStatisticKind,
)
from nst_service.engine.objective.losses import LossKind
from nst_service.engine.options import StyleOptions, TransferOptions
from nst_service.lifecycle import JobState, StopReason
from nst_service.rpc.translate.fields import (
    enum_from_proto,
    enum_problem,
    enum_to_proto,
    scalars_from_proto,
    scalars_to_proto,
)
from nst_service.store.records import DisconnectPolicy

_ENUMS = [
    (Preset, pb.Preset),
    (OptimizerKind, pb.Optimizer),
    (Init, pb.Init),
    (StyleStatisticKind, pb.StyleLoss),
    (Pooling, pb.Pooling),
    (Padding, pb.Padding),
    (ColorMode, pb.ColorMode),
    (OutputFormat, pb.PictureFormat),
    (LossKind, pb.LossKind),
    (StopReason, pb.StopReason),
    (JobState, pb.JobState),
    (DisconnectPolicy, pb.DisconnectPolicy),
]


@pytest.mark.parametrize(("kind", "wrapper"), _ENUMS)
def test_an_enum_has_every_value_of_the_contract(kind: type[StrEnum], wrapper: Any):
    assert {enum_to_proto(value) for value in kind} == set(wrapper.values()) - {0}


@pytest.mark.parametrize("kind", [kind for kind, _ in _ENUMS])
def test_a_value_of_an_enum_comes_back_from_the_contract(kind: type[StrEnum]):
    assert [enum_from_proto(kind, enum_to_proto(value)) for value in kind] == list(kind)


@pytest.mark.parametrize("number", [0, 9])
def test_a_number_that_an_enum_does_not_have_is_refused_with_the_accepted_names(number: int):
    problem = enum_problem(Pooling, number)
    assert problem == f"is {number}; accepted values are POOLING_MAX, POOLING_AVERAGE, POOLING_L2"
    assert enum_problem(Pooling, pb.POOLING_MAX) is None


def test_only_scalars_that_are_set_are_translated():
    assert scalars_from_proto(pb.Style(weight=0.0)) == {"weight": 0.0}
    assert scalars_from_proto(pb.Style()) == {}
    assert scalars_to_proto(pb.Style, StyleOptions(weight=2.0)) == {"weight": 2.0, "scale": 1.0}
    assert "learning_rate" not in scalars_to_proto(pb.TransferOptions, TransferOptions(learning_rate=None))
