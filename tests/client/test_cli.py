import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_client.cli import commands
from nst_client.cli.exits import flag_of
from nst_client.cli.reports import Lines, describe
from nst_client.events import Reconnected
from nst_client.translate import event_from_proto

SOON = 20.0
"""Seconds after which a test that waits has failed."""


@pytest.fixture
def run(target):
    """Run the command line against the server."""

    def run(*arguments, **environment):
        return CliRunner(env={"NST_TARGET": target} | environment).invoke(commands, [str(a) for a in arguments])

    return run


@pytest.fixture
def stylize(run, pictures, tmp_path):
    """Run `stylize` with one style, to out.png."""

    def stylize(*arguments):
        return run("stylize", pictures[0], pictures[1], "-o", tmp_path / "out.png", *arguments)

    return stylize


def test_no_command_shows_the_help_with_the_exit_codes(run):
    done = run()
    assert done.exit_code == 0
    assert "Usage:" in done.output
    assert "130  cancelled" in done.output


def test_stylize_writes_the_picture_and_tells_how_it_goes(stylize, servicer, script, tmp_path):
    servicer.attempts = [script.job(b"the picture")]
    done = stylize()
    assert done.exit_code == 0
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("job job-1 accepted: 64x48, 20 iterations")
    assert "queued: 2 ahead, starts in about 3.0 s" in lines
    assert "iteration 10/20, loss 12.5, 5 it/s, 4.0 s left" in lines
    assert lines[-1] == f"wrote {tmp_path / 'out.png'}: 64x48, image/png, 11 bytes"


def test_quiet_says_nothing(stylize, servicer, script):
    servicer.attempts = [script.job()]
    done = stylize("--quiet")
    assert (done.exit_code, done.output) == (0, "")


def test_without_flags_every_default_is_the_servers(stylize, servicer, script):
    servicer.attempts = [script.job()]
    stylize()
    assert servicer.requests == [
        pb.StylizeRequest(
            content=pb.Picture(data=b"content.jpg"),
            styles=[pb.Style(picture=pb.Picture(data=b"style.jpg"))],
            options=pb.TransferOptions(),
            output=pb.OutputOptions(format=pb.PICTURE_FORMAT_PNG),
        )
    ]


def test_an_init_picture_is_sent(stylize, servicer, script, pictures):
    servicer.attempts = [script.job()]
    stylize("--init-picture", pictures[2], "--size", "512")
    assert servicer.requests[0].init_picture.data == b"other.jpg"
    assert servicer.requests[0].options == pb.TransferOptions(image_size=512)


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [(".png", "PNG"), (".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")],
)
def test_the_format_follows_the_suffix(*, run, servicer, script, pictures, tmp_path, suffix, expected):
    servicer.attempts = [script.job()]
    run("stylize", pictures[0], pictures[1], "-o", tmp_path / f"out{suffix}")
    assert servicer.requests[0].output.format == pb.PictureFormat.Value(f"PICTURE_FORMAT_{expected}")


@pytest.mark.parametrize(("flags", "every"), [((), 10), (("--iterations", "400"), 20), (("--iterations", "3"), 1)])
def test_a_preview_without_an_interval_gets_a_sensible_one(*, stylize, servicer, script, tmp_path, flags, every):
    servicer.attempts = [script.job()]
    preview = tmp_path / "preview.jpg"
    assert stylize("--preview", preview, *flags).exit_code == 0
    assert servicer.requests[0].options.preview_every == every
    assert preview.read_bytes() == b"preview"


def test_json_is_one_object_a_line_on_stdout(stylize, servicer, script, tmp_path):
    servicer.attempts = [script.job()]
    done = stylize("--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = ["accepted", "queued", "started", "preparing", "progress", "preview", "reduced", "completed", "saved"]
    assert [event["event"] for event in events] == kinds
    assert events[0]["options"]["content_layers"] == {"relu4_2": 0.5, "relu3_1": None}
    assert (events[3]["part"], events[3]["parts"]) == (1, 2)
    assert events[4]["terms"] == [{"kind": "style", "layer": "relu1_1", "value": 12.5}]
    assert events[5]["size_bytes"] == len(b"preview")
    assert "data" not in events[5]
    assert (events[6]["width"], events[6]["height"]) == (32, 24)
    assert events[7]["stop_reason"] == "iterations"
    assert events[8]["path"] == str(tmp_path / "out.png")
    assert done.stderr == ""


def test_plain_lines_are_not_written_more_often_than_once_a_second(script):
    now = 0.0
    written = []
    lines = Lines(written.append, clock=lambda: now)
    for iteration in range(1, 21):
        now = iteration * 0.3
        lines.event(event_from_proto(script.progress(iteration)))
    assert [int(line.split()[1].split("/")[0]) for line in written] == [1, 5, 9, 13, 17, 20]


def test_a_result_that_is_smaller_than_asked_for_is_told_so(script):
    message = script.accepted()
    assert describe(event_from_proto(message)).startswith("job job-1 accepted: 64x48, 20 iterations")
    message.accepted.estimate.reduced_from = 128
    assert describe(event_from_proto(message)).startswith(
        "job job-1 accepted: 64x48 (reduced from 128, which does not fit into memory), 20 iterations"
    )
    assert describe(event_from_proto(script.reduced())) == "memory ran out: the job continues at 32x24"


def test_scales_are_told_where_there_are_several(script):
    message = script.progress(3)
    message.progress.scales = 3
    assert describe(event_from_proto(message)).startswith("scale 1/3, iteration 3/20")
    assert describe(event_from_proto(script.preparing(1))) == "scale 1/3, preparing, part 1/2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--init", "random", "--init-picture", "x.jpg"), "--init and --init-picture exclude each other"),
        (("--preview-every", "5"), "--preview-every needs --preview FILE"),
        (("--preview-size", "64"), "--preview-size needs --preview FILE"),
        (("--size", "big"), "'big' is not a size, accepted are a number of pixels and 'keep'"),
        (("--content-layer", "relu4_2=x"), "'relu4_2=x' has no number after '='"),
        (("--style-layer", "relu4_2", "--style-layer", "relu4_2=2"), "relu4_2 is named more than once"),
        (("--style-blend", "1", "--style-blend", "2"), "--style-blend was given 2 times, expected is once for each"),
        (("--iterations", "many"), "--iterations"),
        (("--timeout", "0"), "--timeout"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_and_no_call(stylize, servicer, arguments, message):
    done = stylize(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert servicer.requests == []


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("out.gif", "accepted are .png, .jpg, .jpeg, .webp"),
        ("out", "accepted are .png, .jpg, .jpeg, .webp"),
        ("none/out.png", "does not exist"),
        (".", "is a directory"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(*, run, servicer, pictures, tmp_path, out, message):
    done = run("stylize", pictures[0], pictures[1], "-o", tmp_path / out)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert servicer.requests == []


def test_a_missing_picture_is_named(run, pictures, tmp_path):
    done = run("stylize", pictures[0], pictures[1], tmp_path / "none.jpg", "-o", tmp_path / "out.png")
    assert done.exit_code == 2
    assert done.stderr == f"Error: STYLE 2: cannot read the file '{tmp_path / 'none.jpg'}': No such file or directory\n"


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("content", "CONTENT"),
        ("styles[0].picture", "STYLE 1"),
        ("styles[1].picture.data", "STYLE 2"),
        ("styles[1].scale", "--style-scale 2"),
        ("styles[1].weight", "--style-blend 2"),
        ("init_picture", "--init-picture"),
        ("options.image_size", "--size"),
        ("options.style_layers", "--style-layer"),
        ("options.style_layers['x'].weight", "--style-layer"),
        ("options.lbfgs_history", "--lbfgs-history"),
        ("output.quality", "--quality"),
    ],
)
def test_an_error_names_the_flag_of_its_field(field, flag):
    assert flag_of(field) == flag


@pytest.mark.parametrize(
    ("code", "details", "exit_code"),
    [
        ("INVALID_ARGUMENT", {"violations": {"options.iterations": "is 0"}}, 2),
        ("RESOURCE_EXHAUSTED", {"reason": "REQUEST_TOO_LARGE"}, 2),
        ("RESOURCE_EXHAUSTED", {"reason": "QUEUE_FULL", "retry_after": 99}, 3),
        ("UNAVAILABLE", {"reason": "DRAINING", "retry_after": 99}, 3),
        ("FAILED_PRECONDITION", {"reason": "DOES_NOT_FIT"}, 4),
        ("DEADLINE_EXCEEDED", {"reason": "DEADLINE_TOO_SHORT"}, 5),
        ("INTERNAL", {"reason": "LOSS_NOT_FINITE"}, 1),
        ("CANCELLED", {"reason": "CANCELLED"}, 130),
    ],
)
def test_a_refusal_is_one_message_and_its_exit_code(*, stylize, servicer, failure, tmp_path, code, details, exit_code):
    servicer.attempts = [[failure(grpc.StatusCode[code], "the reason", **details)]]
    done = stylize()
    assert done.exit_code == exit_code
    assert done.stderr.startswith("Error: ")
    assert ("--iterations: is 0" if "violations" in details else "the reason") in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


def test_every_violation_has_its_own_line(stylize, servicer, failure):
    violations = {"options.iterations": "is 0", "output.quality": "is 101"}
    servicer.attempts = [[failure(grpc.StatusCode.INVALID_ARGUMENT, violations=violations)]]
    assert stylize().stderr.splitlines() == ["Error: --iterations: is 0", "       --quality: is 101"]


def test_a_corrupt_picture_is_not_written(stylize, servicer, script, tmp_path):
    servicer.attempts = [[script.accepted(), script.header(b"0123"), script.chunk(0, b"0124"), script.completed()]]
    done = stylize()
    assert done.exit_code == 6
    assert "SHA-256" in done.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(("flags", "environment"), [(("--reconnect-seconds", 0), "60"), ((), "0")])
def test_a_lost_server_is_looked_for_as_long_as_is_said(
    *, run, servicer, script, lost, pictures, tmp_path, flags, environment
):
    servicer.attempts = [[script.accepted(), lost]]
    stylize = ("stylize", *pictures, "-o", tmp_path / "out.png")
    assert run(*flags, *stylize, NST_RECONNECT_SECONDS=environment).exit_code == 3
    assert servicer.watches == []


def test_no_server_is_named_with_its_target(run, pictures, tmp_path):
    done = run(
        "--target", "localhost:1", "stylize", pictures[0], pictures[1], "-o", tmp_path / "out.png", "--retries", "0"
    )
    assert done.exit_code == 3
    assert "Error: no server answers at localhost:1: " in done.stderr


def test_a_job_that_someone_else_cancels_keeps_its_picture(stylize, servicer, script, tmp_path):
    servicer.attempts = [[script.accepted(), *script.picture(stop_reason=pb.STOP_REASON_CANCELLED)]]
    assert stylize().exit_code == 130
    assert (tmp_path / "out.png").read_bytes() == b"the picture"


def test_a_lost_connection_is_told_and_made_good(stylize, servicer, script, lost, tmp_path):
    job = script.job()
    servicer.attempts, servicer.watch_attempts = [[*job[:4], lost]] * 2, [job[4:]] * 2
    assert "reconnected after 0." in stylize().stderr
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    events = [json.loads(line) for line in stylize("--json").stdout.splitlines()]
    (event,) = [event for event in events if event["event"] == "reconnected"]
    assert (event["attempts"], event["began_anew"]) == (1, False)


def test_an_outage_is_told_before_it_is_over(*, start, servicer, script, pictures, tmp_path, lost):
    told = threading.Event()
    job = script.job()
    servicer.attempts, servicer.watch_attempts = [[*job[:4], lost]], [[lambda: told.wait(SOON), *job[4:]]]
    process = start("stylize", *pictures[:2], "-o", tmp_path / "out.png")
    line = until(process.stderr, "the server is lost (Socket closed): looking for it for 0:01:00")
    told.set()
    assert "the server is lost" in line
    assert "reconnected after" in process.communicate(timeout=SOON)[1]
    assert process.returncode == 0


def test_an_outage_is_an_object_for_programs(stylize, servicer, script, lost):
    job = script.job()
    servicer.attempts, servicer.watch_attempts = [[*job[:4], lost]], [job[4:]]
    kinds = [json.loads(line) for line in stylize("--json").stdout.splitlines()]
    (outage,) = [kind for kind in kinds if kind["event"] == "disconnected"]
    assert outage == {
        "event": "disconnected",
        "job_id": "job-1",
        "message": "Socket closed",
        "reconnect_seconds": 60.0,
    }


def test_a_job_that_begins_anew_says_so():
    event = Reconnected(sequence=0, attempts=2, seconds=3.0, began_anew=True)
    assert describe(event) == "reconnected after 3.0 s: the server had lost the job, which starts again"


def test_a_detached_job_prints_its_id_and_goes_on(run, servicer, script, pictures):
    servicer.attempts = [[script.accepted("job-7"), servicer.wait_for_end]] * 2
    done = run("stylize", *pictures[:2], "--detach", "--request-id", "mine")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "job-7\n", "")
    assert servicer.request_ids == ["mine"]
    assert servicer.requests[0].disconnect_policy == pb.DISCONNECT_POLICY_KEEP_RUNNING
    assert servicer.cancelled == []
    event = json.loads(run("stylize", *pictures[:2], "--detach", "--json").stdout)
    assert (event["event"], event["job_id"]) == ("accepted", "job-7")


@pytest.mark.parametrize("flag", ["--out", "--preview", "--plot", "--frames", "--timelapse"])
def test_a_detached_job_writes_nothing(*, run, servicer, pictures, tmp_path, flag):
    path = tmp_path / ("film.mp4" if flag == "--timelapse" else "out.png")
    done = run("stylize", *pictures[:2], "--detach", flag, path)
    assert done.exit_code == 2
    assert f"--detach and {flag} exclude each other" in done.stderr
    assert servicer.requests == []


def test_a_job_without_an_output_must_be_detached(run, servicer, pictures):
    done = run("stylize", *pictures[:2])
    assert done.exit_code == 2
    assert "--out or --detach is required" in done.stderr
    assert servicer.requests == []


def test_a_request_id_that_was_used_otherwise_is_a_refusal(stylize, servicer, failure):
    servicer.attempts = [[failure(grpc.StatusCode.ALREADY_EXISTS, "another request", resource=("nst.v1.Job", "x"))]]
    done = stylize("--request-id", "mine")
    assert (done.exit_code, done.stderr) == (2, "Error: another request\n")


def test_a_full_store_takes_no_jobs_now(stylize, servicer, failure):
    full = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "the store is full", reason="STORE_FULL", retry_after=99)
    servicer.attempts = [[full]]
    done = stylize()
    assert (done.exit_code, done.stderr) == (3, "Error: the store is full; try again in 99 s\n")


def test_watch_follows_a_job_and_writes_its_picture(run, servicer, script, tmp_path):
    servicer.watch_attempts = [script.job()]
    done = run("watch", "job-1", "-o", tmp_path / "out.png")
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert lines[0].startswith("job job-1 accepted")
    assert lines[-1] == f"wrote {tmp_path / 'out.png'}: 64x48, image/png, 11 bytes"
    assert (tmp_path / "out.png").read_bytes() == b"the picture"


def test_watch_without_an_output_only_tells(run, servicer, script):
    servicer.watch_attempts = [script.job()]
    events = [json.loads(line)["event"] for line in run("watch", "job-1", "--json").stdout.splitlines()]
    assert (events[0], events[-1]) == ("accepted", "completed")


def test_watch_ends_as_the_job_did(run, servicer, script, failure, no_job):
    failed = failure(grpc.StatusCode.INTERNAL, "not finite", reason="LOSS_NOT_FINITE")
    cancelled = script.picture(stop_reason=pb.STOP_REASON_CANCELLED)
    accepted = script.event(accepted=pb.Accepted(job_id="job-1"))
    servicer.watch_attempts = [[accepted, failed], [accepted, *cancelled], [no_job]]
    cancelled[0].sequence, accepted.sequence = 2, 1
    for number, event in enumerate(cancelled, start=2):
        event.sequence = number
    assert [run("watch", "job-1").exit_code for _ in range(3)] == [1, 130, 1]


def test_get_describes_a_job(run, servicer, description):
    failure = pb.JobFailure(code=13, message="not finite", reason="LOSS_NOT_FINITE")
    servicer.described = [
        description("job-1", request_id="mine"),
        description("job-2", pb.JOB_STATE_RUNNING),
        description("job-3", pb.JOB_STATE_FAILED, failure=failure),
    ]
    rows = dict(line.strip().split(maxsplit=1) for line in run("get", "job-1").stdout.splitlines())
    assert (rows["state"], rows["request"], rows["iterations"]) == ("succeeded", "mine", "20/20")
    assert "iterations           10/20" in run("get", "job-2").stdout
    assert "INTERNAL: not finite" in run("get", "job-3").stdout
    job = json.loads(run("get", "job-3", "--json").stdout)
    assert job["failure"] == {"code": "INTERNAL", "message": "not finite", "reason": "LOSS_NOT_FINITE"}
    assert (job["create_time"], job["end_time"]) == ("2026-11-24T18:00:00+00:00", None)
    assert run("get", "job-4").exit_code == 1


def test_get_writes_the_picture_of_a_job_that_has_one(run, servicer, script, description, tmp_path):
    servicer.described = [description("job-1"), description("job-2", pb.JOB_STATE_RUNNING)]
    script.sequence = 0
    servicer.watch_attempts = [script.job()]
    assert run("get", "job-1", "-o", tmp_path / "out.png").exit_code == 0
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    done = run("get", "job-2", "-o", tmp_path / "other.png")
    assert (done.exit_code, done.stderr) == (1, "Error: the job job-2 has no picture: it is running\n")


def test_the_size_of_a_job_is_the_one_that_it_has_come_down_to(run, servicer, description):
    servicer.described = [description("job-1"), description("job-2", pb.JOB_STATE_RUNNING)]
    servicer.described[0].width = 32
    assert "32x48" in run("get", "job-1").stdout
    assert [line.split()[4] for line in run("list").stdout.splitlines()[1:]] == ["32x48", "64x48"]


def test_list_is_a_table_or_json(run, servicer, description):
    long_id = "0b0e2a52-0e4d-4a39-9d6b-1d2b6f0c9a11"
    servicer.described = [
        description(long_id, request_id=long_id),
        description("job-2", pb.JOB_STATE_RUNNING),
        description("job-3", pb.JOB_STATE_QUEUED),
    ]
    header, first, second, third = (line.split() for line in run("list").stdout.splitlines())
    assert header == ["job", "state", "created", "size", "iterations", "request"]
    assert (first[0], first[1], first[4:]) == (long_id, "succeeded", ["64x48", "20/20", long_id])
    assert (second[1], second[-1], third[-1]) == ("running", "10/20", "0/20")
    jobs = [json.loads(line) for line in run("list", "--json", "--limit", "2").stdout.splitlines()]
    assert [job["job_id"] for job in jobs] == [long_id, "job-2"]
    assert run("list", "--state", "running", "--state", "queued", "--json").stdout.count("\n") == 2


def test_info_is_a_table_or_json(run, servicer):
    servicer.info = pb.GetServerInfoResponse(
        version="9.9",
        devices=["cpu"],
        limits=pb.Limits(max_styles=8),
        default_options=pb.TransferOptions(iterations=500, style_layers=[pb.LayerWeight(layer="relu1_1", weight=0.5)]),
    )
    table = run("info").stdout
    assert [line.split() for line in table.splitlines() if "default: iterations" in line] == [
        [
            "default:",
            "iterations",
            "500",
        ]
    ]
    assert "relu1_1=0.5" in table
    description = json.loads(run("info", "--json").stdout)
    assert (description["version"], description["limits"]["max_styles"]) == ("9.9", 8)


def test_cancel_tells_the_state_of_the_job(run, servicer):
    done = run("cancel", "job-1")
    assert (done.exit_code, done.stdout) == (0, "the job was running\n")
    assert servicer.cancelled == ["job-1"]
    assert run("cancel", "job-2").exit_code == 1


def test_jobs_are_named_by_the_id_of_their_request_too(run, servicer, script, description, tmp_path):
    servicer.request_ids, servicer.watch_attempts = ["order-1"], [script.job()]
    servicer.described = [description(request_id="order-1")]
    assert run("cancel", "--request-id", "order-1").stdout == "the job was running\n"
    assert servicer.cancelled == ["order-1"]
    assert json.loads(run("get", "--request-id", "order-1", "--json").stdout)["job_id"] == "job-1"
    assert run("watch", "--request-id", "order-1", "-o", tmp_path / "out.png").exit_code == 0
    assert (tmp_path / "out.png").read_bytes() == b"the picture"


@pytest.mark.parametrize("command", ["cancel", "get", "watch"])
def test_a_job_has_one_name(run, command):
    assert "JOB_ID or --request-id is needed" in run(command).stderr
    assert "exclude each other" in run(command, "job-1", "--request-id", "order-1").stderr


def test_health_exits_with_0_only_when_serving(run, servicer):
    done = run("health")
    assert (done.exit_code, done.stdout) == (0, "serving\n")
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    done = run("health")
    assert (done.exit_code, done.stdout) == (3, "not_serving\n")
    assert run("--target", "localhost:1", "health", "--timeout", "5").exit_code == 3


@pytest.fixture
def process(start, pictures, tmp_path):
    """A real `nst-client stylize` that tells its events on stdout."""
    return start("stylize", *pictures[:2], "-o", tmp_path / "out.png", "--json")


def wait_until(is_true):
    """Wait until a condition holds."""
    end = time.monotonic() + SOON
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def until(stream, text):
    """Read lines up to the one with the text."""
    return next(line for line in stream if text in line)


STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_interrupt_cancels_and_keeps_the_best_picture(process, servicer, script, tmp_path, number):
    accepted, progress = script.accepted(), script.progress(1)
    picture = script.picture(stop_reason=pb.STOP_REASON_CANCELLED)
    servicer.attempts = [[accepted, progress, servicer.wait_for_cancel, *picture]]
    until(process.stdout, "progress")
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert servicer.cancelled == ["job-1"]
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert "cancelling: waiting for the best picture so far" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("ignored", STOP_SIGNALS)
def test_a_signal_that_the_parent_ignores_stays_ignored(*, start, servicer, script, pictures, tmp_path, ignored):
    sent = threading.Event()
    servicer.attempts = [[script.accepted(), script.progress(1), lambda: sent.wait(SOON), *script.picture(b"done")]]
    process = start("stylize", *pictures[:2], "-o", tmp_path / "out.png", "--json", ignored=[ignored])
    until(process.stdout, "progress")
    os.kill(process.pid, ignored)
    sent.set()
    process.communicate(timeout=SOON)
    assert process.returncode == 0
    assert servicer.cancelled == []
    assert (tmp_path / "out.png").read_bytes() == b"done"


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_while_a_picture_is_read_ends_the_command(start, servicer, pictures, tmp_path, number):
    process = start("stylize", "-", pictures[1], "-o", tmp_path / "out.png", stdin=subprocess.PIPE)
    # The command waits in the read, in which the kernel says that a process sleeps.
    wait_until(lambda: b"pipe" in Path(f"/proc/{process.pid}/wchan").read_bytes())
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=SOON)
    assert (process.returncode, stderr) == (130, "Error: interrupted\n")
    assert servicer.requests == []


def test_the_second_interrupt_leaves_at_once(process, servicer, script, tmp_path):
    servicer.attempts = [[script.accepted(), script.progress(1), servicer.wait_for_end]]
    until(process.stdout, "progress")
    os.kill(process.pid, signal.SIGINT)
    until(process.stderr, "press Ctrl-C again")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert not (tmp_path / "out.png").exists()
    assert servicer.call_ended.wait(SOON)


def test_an_interrupt_before_there_is_a_job_ends_the_call(process, servicer):
    started = servicer.cancel_asked
    servicer.attempts = [[started.set, servicer.wait_for_end]]
    assert started.wait(SOON)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert servicer.call_ended.wait(SOON)


def test_an_interrupt_leaves_a_watched_job_running(start, servicer, script, tmp_path):
    servicer.watch_attempts = [[script.accepted(), script.progress(1), servicer.wait_for_end]]
    process = start("watch", "job-1", "-o", tmp_path / "out.png", "--json")
    until(process.stdout, "progress")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert stderr == "leaving: the job continues; nst-client cancel ends it\n"
    assert servicer.call_ended.wait(SOON)
    assert servicer.cancelled == []


def test_a_terminal_shows_a_live_bar(run, servicer, script, pictures, tmp_path):
    servicer.attempts = [script.job()]
    done = run("stylize", *pictures[:2], "-o", tmp_path / "out.png", FORCE_COLOR="1", COLUMNS="150", TERM="xterm")
    assert done.exit_code == 0
    assert "\x1b[?25l" in done.stderr
    assert "done after 20 iterations in 3.0 s, loss 1.5, stopped by: iterations" in done.stderr
    assert f"wrote {tmp_path / 'out.png'}" in done.stderr.replace("\n", "")
