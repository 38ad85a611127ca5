import json
import subprocess
import sys

import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client.json import event_to_json, to_json
from nst_client.translate import event_from_proto, job_from_proto


def test_every_event_is_one_object_on_one_line_that_names_its_kind(script):
    events = [event_from_proto(message) for message in script.job()]
    lines = [event_to_json(event) for event in events if event is not None]
    kinds = ["accepted", "queued", "started", "preparing", "progress", "preview", "reduced", "completed"]
    assert [json.loads(line)["event"] for line in lines] == kinds
    assert not any("\n" in line for line in lines)


def test_an_event_has_its_own_fields_after_its_kind(script):
    event = json.loads(event_to_json(event_from_proto(script.queued())))
    assert event == {"event": "queued", "sequence": 1, "position": 2, "eta_seconds": 3.0}


def test_a_preview_has_its_size_in_place_of_its_bytes(script):
    event = json.loads(event_to_json(event_from_proto(script.preview(b"small"))))
    assert event["size_bytes"] == len(b"small")
    assert "data" not in event


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_json_says_null_for_a_loss_that_is_not_finite(script, loss):
    event = event_from_proto(script.progress(3, loss=loss))
    assert json.loads(event_to_json(event))["total_loss"] is None


def test_times_are_iso_8601_and_status_codes_are_names(description):
    failure = pb.JobFailure(code=13, message="not finite", reason="LOSS_NOT_FINITE")
    job = json.loads(to_json(job_from_proto(description(state=pb.JOB_STATE_FAILED, failure=failure))))
    assert job["create_time"] == "2026-11-24T18:00:00+00:00"
    assert (job["state"], job["failure"]["code"]) == ("failed", "INTERNAL")


def test_a_mapping_is_an_object_too():
    assert to_json({"event": "frame", "eta_seconds": float("inf")}) == '{"event": "frame", "eta_seconds": null}'


def test_json_needs_neither_click_nor_rich():
    code = "import sys, nst_client.json; print(*({'click', 'rich', 'nst_client.cli'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
