"""Messages between a server and its remote devices, there and back."""

import dataclasses
import json
import math
from typing import Any

import pytest
from nst_service.engine.choices import ColorMode, Init
from nst_service.engine.estimate import Cost
from nst_service.engine.objective.losses import LossKind, Term
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.pictures.picture import Picture
from nst_service.engine.sizes import Size
from nst_service.engine.spec import Style, TransferSpec
from nst_service.jobs.errors import DoesNotFitError, JobCancelledError, JobError, JobFailedError, QuotaExceededError
from nst_service.jobs.events import Preparing, Preview, Progress, Reduced, Started
from nst_service.jobs.job import Work
from nst_service.jobs.wire import (
    Control,
    Failure,
    Kind,
    Message,
    MissingImages,
    Packer,
    Report,
    Requeue,
    Shrinking,
    Unpacker,
    WireError,
    spec_document,
    spec_from,
)
from nst_service.lifecycle import StopReason
from PIL import Image

from tests.jobs.builders import SPEC, make_result

_MASK = Image.linear_gradient("L").resize((8, 6))
_FULL = TransferSpec(
    content=Picture(Image.radial_gradient("L").resize((8, 6)).convert("RGB"), _MASK),
    styles=(
        Style(picture=Picture.blank(Size(5, 4)), share=0.25, scale=2.0, mask=_MASK),
        Style(picture=Picture.blank(Size(5, 4)), share=0.75),
    ),
    content_mask=_MASK,
    init_picture=Picture.blank(Size(8, 6)),
    reference=Picture.blank(Size(8, 6)),
    reference_mask=_MASK.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    options=TransferOptions(
        color=ColorMode.LUMINANCE, init=Init.PICTURE, learning_rate=0.1, seed=2**62, style_layers={"relu1_1": 0.3}
    ),
    output=OutputOptions(quality=3),
    reduced_from=Size(16, 12),
)


@pytest.mark.parametrize("spec", [SPEC, _FULL])
def test_a_specification_is_the_same_at_the_other_end(spec: TransferSpec):
    document, images = spec_document(spec)
    assert spec_from(document, dict(images)) == spec


def test_equal_images_are_named_once():
    _, images = spec_document(_FULL)
    # The styles are equal, two of the three masks, and the pictures to start from and to stay close to.
    assert sorted(image.size for image in images.values()) == [(5, 4), (8, 6), (8, 6), (8, 6), (8, 6)]


def report(**content: Any) -> Report:
    work = Work(iterations=3, megapixel_iterations=0.1, taken_back=1, device_seconds=2.5)
    return Report(job_id="job", remaining_seconds=math.inf, next_seconds=0.1, work=work, **content)


@pytest.mark.parametrize(
    "sent",
    [
        report(started=Started(device="cpu", queued_seconds=1.5)),
        report(preparing=Preparing(scale=1, scales=2, part=3, parts=4)),
        report(
            progress=Progress(
                scale=1,
                scales=2,
                iteration=3,
                total_iterations=4,
                total_loss=0.1 + 0.2,
                terms={Term(LossKind.STYLE, "relu1_1"): 1e-300, Term(LossKind.TOTAL_VARIATION): 0.0},
                elapsed_seconds=1.0,
                eta_seconds=2.0,
            )
        ),
        report(preview=Preview(iteration=1, media_type="image/jpeg", width=3, height=2, data=b"\x00\xff")),
        report(
            shrinking=Shrinking(
                outline=SPEC.outline.reduced(Size(4, 3)), cost=Cost(1.0, 2, 256), reduced=Reduced(width=4, height=3)
            )
        ),
        report(checkpoint=(memoryview(b"header"), memoryview(b""), memoryview(b"tensor"))),
        report(result=make_result()),
        report(requeue=Requeue(snapshot=(memoryview(b"header"),), is_lost=False)),
        report(requeue=Requeue(snapshot=None, is_lost=True)),
        Control(
            job_id="job",
            stop_requested=StopReason.CANCELLED,
            must_leave=True,
            is_abandoned=False,
            checkpoint_in=None,
            reductions_stored=2,
        ),
    ],
)
def test_a_message_is_the_same_at_the_other_end(sent: Report | Control):
    message = Packer().message(sent)
    assert Unpacker(message.buffers).read(type(sent), Message(bytes(message.document), message.buffers)) == sent


@pytest.mark.parametrize(
    "error",
    [
        DoesNotFitError(2**30, 2**20, 512, (3, 2**25)),
        JobCancelledError(),
        JobFailedError("INTERNAL", "error"),
    ],
)
def test_an_error_is_the_same_at_the_other_end(error: JobError):
    message = Packer().message(Failure.of(error))
    received = Unpacker().read(Failure, message).to_error()
    assert type(received) is type(error)
    assert str(received) == str(error)
    # JSON has no tuples.
    assert json.dumps(vars(received)) == json.dumps(vars(error))


def test_an_error_that_no_run_raises_is_refused():
    failure = dataclasses.replace(Failure.of(JobCancelledError()), kind=QuotaExceededError.__name__)
    with pytest.raises(WireError, match="has an unknown error 'QuotaExceededError'"):
        failure.to_error()


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"[", "is no MissingImages of this release"),
        (b"null", "is no MissingImages of this release"),
        (b'{"images": [], "other": 1}', "has other fields than MissingImages of this release"),
        (b"{}", "has other fields than MissingImages of this release"),
        (b'{"images": [1]}', "has a int instead of a str"),
    ],
)
def test_a_message_of_another_release_is_refused(document: bytes, reason: str):
    with pytest.raises(WireError, match=reason):
        Unpacker().read(MissingImages, Message(document))


def test_kinds_are_compared_in_words():
    kind = Kind(
        release="1", torch="2", weights_sha256="w", processor="H100", backend="torch", precision="tf32", threads=0
    )
    assert kind.difference(kind) == ""
    other = dataclasses.replace(kind, precision="bfloat16", threads=2)
    assert other.difference(kind) == "its precision is 'bfloat16' instead of 'tf32', its threads is 2 instead of 0"
