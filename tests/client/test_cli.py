import json
import os
import signal
import subprocess
import sys

import grpc
import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_client.cli import commands
from nst_client.cli.exits import flag_of
from nst_client.cli.json_lines import event_to_json
from nst_client.cli.reports import Lines, describe
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
    kinds = ["accepted", "queued", "started", "preparing", "progress", "preview", "completed", "saved"]
    assert [event["event"] for event in events] == kinds
    assert events[0]["options"]["content_layers"] == {"relu4_2": 0.5, "relu3_1": None}
    assert (events[3]["part"], events[3]["parts"]) == (1, 2)
    assert events[4]["terms"] == [{"kind": "style", "layer": "relu1_1", "value": 12.5}]
    assert events[5]["size_bytes"] == len(b"preview")
    assert "data" not in events[5]
    assert events[6]["stop_reason"] == "iterations"
    assert events[7]["path"] == str(tmp_path / "out.png")
    assert done.stderr == ""


def test_json_says_null_for_a_loss_that_is_not_finite(script):
    event = event_from_proto(script.progress(3, loss=float("nan")))
    assert json.loads(event_to_json(event))["total_loss"] is None


def test_plain_lines_are_not_written_more_often_than_once_a_second(script):
    now = 0.0
    written = []
    lines = Lines(written.append, clock=lambda: now)
    for iteration in range(1, 21):
        now = iteration * 0.3
        lines.event(event_from_proto(script.progress(iteration)))
    assert [int(line.split()[1].split("/")[0]) for line in written] == [1, 5, 9, 13, 17, 20]


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
        (("--size", "big"), "'big' is no size, accepted are a number of pixels and 'keep'"),
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


def test_health_exits_with_0_only_when_serving(run, servicer):
    done = run("health")
    assert (done.exit_code, done.stdout) == (0, "serving\n")
    servicer.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    done = run("health")
    assert (done.exit_code, done.stdout) == (3, "not_serving\n")
    assert run("--target", "localhost:1", "health", "--timeout", "5").exit_code == 3


@pytest.fixture
def process(target, pictures, tmp_path):
    """A real `nst-client stylize` that tells its events on stdout."""
    command = [sys.executable, "-c", "from nst_client.cli import main; main()", "--target", target]
    command += ["stylize", *map(str, pictures[:2]), "-o", str(tmp_path / "out.png"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def until(stream, text):
    """Read lines up to the one with the text."""
    return next(line for line in stream if text in line)


def test_the_first_interrupt_cancels_and_keeps_the_best_picture(process, servicer, script, tmp_path):
    accepted, progress = script.accepted(), script.progress(1)
    picture = script.picture(stop_reason=pb.STOP_REASON_CANCELLED)
    servicer.attempts = [[accepted, progress, servicer.wait_for_cancel, *picture]]
    until(process.stdout, "progress")
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert servicer.cancelled == ["job-1"]
    assert (tmp_path / "out.png").read_bytes() == b"the picture"
    assert "cancelling: waiting for the best picture so far" in stderr
    assert "Traceback" not in stderr


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


def test_a_terminal_shows_a_live_bar(run, servicer, script, pictures, tmp_path):
    servicer.attempts = [script.job()]
    done = run("stylize", *pictures[:2], "-o", tmp_path / "out.png", FORCE_COLOR="1", COLUMNS="150", TERM="xterm")
    assert done.exit_code == 0
    assert "\x1b[?25l" in done.stderr
    assert "done after 20 iterations in 3.0 s, loss 1.5, stopped by: iterations" in done.stderr
    assert f"wrote {tmp_path / 'out.png'}" in done.stderr.replace("\n", "")
