import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from fractions import Fraction

import grpc
import pytest
from click.testing import CliRunner
from nst.v1 import style_transfer_pb2 as pb
from nst_client import InvalidRequestError, OutputOptions, Style, StyleTransferClient, TransferOptions
from nst_client.cli import commands
from nst_service.config import ServerConfig
from nst_service.server import Server
from paint_style import paint
from skimage.data import chelsea

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
np = pytest.importorskip("numpy")
video = pytest.importorskip("nst_client.video")

from nst_client.video.pixels import decode, decode_mask, encode  # noqa: E402 - after what it needs

SOON = 20.0
"""Seconds after which a test that waits has failed."""


def texture(width, height, seed, cell=4):
    noise = np.random.default_rng(seed).integers(0, 256, (height // cell, width // cell, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def moving_square(count, width=96, height=64, step=4):
    """A textured square that moves to the right over a textured ground."""
    ground, square = texture(width, height, seed=1), texture(28, 28, seed=2)
    pictures = [ground.copy() for _ in range(count)]
    for index, picture in enumerate(pictures):
        left = 20 + step * index
        picture[18:46, left : left + 28] = square
    return pictures


def numbered(pictures):
    return [
        video.Frame(number=number, name=f"{number}.png", picture=encode(picture))
        for number, picture in enumerate(pictures, start=1)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder with the frames 1.png, 2.png ... 11.png."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for frame in numbered(moving_square(11)):
        (folder / frame.name).write_bytes(frame.picture)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_the_flow_of_a_shifted_picture_is_its_shift():
    wide = texture(120, 64, seed=3)
    flow = video.flow_between(wide[:, 10:106], wide[:, 7:103])
    assert np.abs(flow[8:-8, 8:-8] - (3, 0)).max() < 0.2


def test_a_flow_of_zero_leaves_a_picture_as_it_is():
    picture = texture(40, 32, seed=4)
    assert (video.warp(picture, np.zeros((32, 40, 2), np.float32)) == picture).all()


def test_a_warped_picture_is_the_next_one():
    wide = texture(120, 64, seed=3)
    before, now = wide[:, 7:103], wide[:, 10:106]
    warped = video.warp(before, video.flow_between(now, before))
    assert np.abs(warped.astype(float) - now)[:, :-4].mean() < 2


def test_what_comes_into_the_picture_can_be_taken_from_another():
    before, other = texture(40, 32, seed=4), np.zeros((32, 40, 3), np.uint8)
    flow = np.full((32, 40, 2), (3, 0), np.float32)
    warped = video.warp(before, flow, beyond=other)
    assert (warped[:, :37] == before[:, 3:]).all()
    assert not warped[:, 37:].any()


def test_the_flow_is_reliable_but_where_something_was_hidden():
    before, now = moving_square(2, step=6)
    known = video.reliable(video.flow_between(now, before), video.flow_between(before, now))
    assert known[:, 64:].all()  # The ground far from the square.
    assert known[24:40, 34:46].mean() > 0.9  # The square.
    assert known[22:42, 20:26].mean() < 0.2  # What it uncovers.


def test_a_flow_out_of_the_picture_is_not_reliable():
    backward = np.full((32, 40, 2), (3, 0), np.float32)
    known = video.reliable(backward, -backward)
    assert known[:, :37].all()
    assert not known[:, 37:].any()


def test_the_pictures_of_a_folder_come_in_the_order_of_their_numbers(folder):
    footage = video.open_footage(folder)
    assert (footage.count, footage.rate) == (11, None)
    assert [frame.name for frame in footage.frames()] == [f"{number}.png" for number in range(1, 12)]
    assert [frame.number for frame in footage.frames(3, 5)] == [3, 4, 5]


def write_video(path, pictures, **arguments):
    with video.VideoWriter(path, **arguments) as writer:
        for number, picture in enumerate(pictures, start=1):
            writer.write(number, encode(picture))


def add_sound(path, source):
    """Make a video out of another by adding a second of sound."""
    with av.open(source) as silent, av.open(path, "w") as container:
        pictures = container.add_stream_from_template(silent.streams.video[0])
        sound = container.add_stream("aac", rate=8000)
        for packet in silent.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                container.mux(packet)
        for index in range(8):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
            samples.rate, samples.pts, samples.time_base = 8000, 1024 * index, Fraction(1, 8000)
            container.mux(sound.encode(samples))
        container.mux(sound.encode())


def test_a_video_comes_back_with_its_rate_and_its_colours(tmp_path):
    pictures = moving_square(6)
    write_video(tmp_path / "clip.mp4", pictures, rate=Fraction(30000, 1001))
    footage = video.open_footage(tmp_path / "clip.mp4")
    assert (footage.count, footage.rate) == (6, Fraction(30000, 1001))
    frames = list(footage.frames(2, 5))
    assert [frame.number for frame in frames] == [2, 3, 4, 5]
    for frame, picture in zip(frames, pictures[1:5], strict=True):
        difference = decode(frame.picture).astype(float) - picture
        assert np.abs(difference).mean() < 12
        assert np.abs(difference.mean((0, 1))).max() < 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_the_sound_of_a_video_is_copied(tmp_path):
    pictures = moving_square(25, step=1)
    write_video(tmp_path / "silent.mp4", pictures)
    add_sound(tmp_path / "clip.mp4", tmp_path / "silent.mp4")
    write_video(tmp_path / "out.mp4", pictures[:10], sound=tmp_path / "clip.mp4", start=11)
    with av.open(tmp_path / "out.mp4") as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        # 0.4 s, in packets of 0.128 s.
        assert 0.3 < float(sound.duration * sound.time_base) < 0.6


@pytest.mark.parametrize("name", ["none.mp4", "text.mp4", "."])
def test_what_is_no_footage_is_refused(tmp_path, name):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(video.FootageError, match=r"cannot read the video|has no pictures"):
        video.open_footage(tmp_path / name)


def answer(script, picture, **changes):
    """A whole job; the events of the next one are numbered from 1 again."""
    script.sequence = 0
    return [script.accepted(), script.started(), script.progress(20), *script.picture(picture, **changes)]


def test_a_frame_of_another_size_is_named(client, servicer, script):
    servicer.attempts = [answer(script, encode(moving_square(1)[0]))]
    frames = numbered([*moving_square(1), *moving_square(1, width=80)])
    with pytest.raises(InvalidRequestError, match="is 80x64 px, the frame before is 96x64 px") as caught:
        list(video.stylize_sequence(client, frames, b"style"))
    assert caught.value.__notes__ == ["frame 2 (2.png)"]


def test_the_styles_of_a_sequence_are_read_once(client, servicer, script, tmp_path):
    servicer.attempts = [answer(script, encode(picture)) for picture in moving_square(3)]
    servicer.estimate.options.iterations = 10
    style, mask = tmp_path / "style.jpg", tmp_path / "mask.png"
    style.write_bytes(b"style")
    mask.write_bytes(b"mask")
    frames = video.stylize_sequence(client, numbered(moving_square(3)), Style(style, mask=mask), content_mask=mask)
    for _ in frames:
        style.unlink(missing_ok=True)
        mask.unlink(missing_ok=True)
    styles = [request.styles[0] for request in servicer.requests]
    assert [(style.picture.data, style.mask.data) for style in styles] == [(b"style", b"mask")] * 4


def test_another_shot_starts_afresh(client, servicer, script):
    pictures = [texture(96, 64, seed=5), texture(96, 64, seed=6, cell=16)]
    servicer.attempts = [answer(script, encode(picture)) for picture in pictures]
    list(video.stylize_sequence(client, numbered(pictures), b"style", options=TransferOptions(iterations=40, scales=2)))
    first, second = servicer.requests
    assert first.options == second.options
    assert not second.HasField("reference")
    assert not second.HasField("init_picture")


@contextlib.asynccontextmanager
async def serving():
    """A real server."""
    server, stop, listening = Server(ServerConfig(address="127.0.0.1:0")), asyncio.Event(), asyncio.Future()
    task = asyncio.create_task(server.run(stop, listening.set_result))
    try:
        yield f"127.0.0.1:{await listening}"
    finally:
        stop.set()
        await task


def flicker(frames, results):
    """Mean absolute difference of each result from the one before, warped to it, where the flow is reliable."""
    pictures, painted = [decode(frame.picture) for frame in frames], [decode(result.data) for result in results]
    differences = []
    for index in range(1, len(frames)):
        before, now = pictures[index - 1], pictures[index]
        backward = video.flow_between(now, before)
        known = video.reliable(backward, video.flow_between(before, now))
        warped = video.warp(painted[index - 1], backward)
        differences.append(np.abs(painted[index].astype(float) - warped)[known].mean())
    return np.mean(differences)


async def test_a_sequence_flickers_less_than_its_frames_one_by_one(style_png):
    frames = numbered(moving_square(3, width=64, height=48))
    options = TransferOptions(image_size=0, iterations=10, scales=1)

    def work(target):
        with StyleTransferClient(target) as client:
            client.wait_until_ready(60)
            alone = [client.stylize(frame.picture, style_png, options=options) for frame in frames]
            together = [result for _, result in video.stylize_sequence(client, frames, style_png, options=options)]
        return alone, together

    async with serving() as target:
        alone, together = await asyncio.to_thread(work, target)
    assert [result.completed.iterations for result in together] == [10, 5, 5]
    assert "temporal" in {term.kind for term in together[-1].completed.terms}
    assert flicker(frames, together) < 0.5 * flicker(frames, alone)


def panned(count, width=96, height=64, step=8):
    """Frames of a photograph that the camera pans over."""
    photograph = cv2.resize(cv2.cvtColor(chelsea(), cv2.COLOR_RGB2BGR), (150, 100), interpolation=cv2.INTER_AREA)
    lefts = [10 + step * index for index in range(count)]
    return [np.ascontiguousarray(photograph[18 : 18 + height, left : left + width]) for left in lefts]


async def test_what_a_pan_brings_into_view_is_painted_as_the_first_frame_is():
    frames = panned(3)
    paint(192, 144).save(style := io.BytesIO(), "PNG")
    options = TransferOptions(image_size=0, iterations=24)

    def work(target):
        with StyleTransferClient(target) as client:
            client.wait_until_ready(60)
            return [
                decode(result.data)
                for _, result in video.stylize_sequence(client, numbered(frames), style.getvalue(), options=options)
            ]

    async with serving() as target:
        painted = await asyncio.to_thread(work, target)
    changes = [np.square(result.astype(float) - frame) for result, frame in zip(painted, frames, strict=True)]
    entered = changes[2][:, -16:]
    assert np.sqrt(entered.mean()) > 0.65 * np.sqrt(changes[0].mean())


def panning(servicer, script, **limits):
    """Let the server answer the frames of a pan, and describe its options and limits."""
    frames = panned(2)
    servicer.attempts = [answer(script, encode(picture)) for picture in frames]
    servicer.estimate.options.MergeFrom(
        pb.TransferOptions(iterations=100, style_weight=1, style_layers=[pb.LayerWeight(layer="relu1_1", weight=1)])
    )
    servicer.info.limits.max_styles = 8
    servicer.info.limits.MergeFrom(pb.Limits(**limits))
    return numbered(frames)


def test_what_comes_into_view_has_style_losses_of_its_own(client, servicer, script):
    list(video.stylize_sequence(client, panning(servicer, script), b"style", output=OutputOptions(bits=8)))
    first, second = stylizations(servicer)
    assert not first.styles[0].HasField("mask")
    entered, rest = (decode_mask(style.mask.data) > 0 for style in second.styles)
    assert entered[:, -8:].all()
    assert not entered[:, :70].any()
    assert (entered != rest).all()
    assert [style.weight for style in second.styles] == pytest.approx([entered.mean(), rest.mean()])
    assert {style.picture.data for style in second.styles} == {b"style"}
    assert second.options.iterations == 50


@pytest.mark.parametrize(
    ("reason", "iterations"),
    [("the server takes one style", 100), ("no style layer counts", 50), ("a blend", 100)],
)
def test_where_styles_cannot_be_split_iterations_make_up_for_it(client, servicer, script, reason, iterations):
    frames = panning(servicer, script, max_styles=1 if reason == "the server takes one style" else 8)
    if reason == "no style layer counts":
        servicer.estimate.options.style_weight = 0
    styles = [b"style", b"other"] if reason == "a blend" else [b"style"]
    list(video.stylize_sequence(client, frames, styles, output=OutputOptions(bits=8)))
    first, second = stylizations(servicer)
    assert second.HasField("reference_mask")
    assert second.styles == first.styles
    assert second.options.iterations == iterations


@pytest.fixture
def run(target, folder, pictures, tmp_path):
    """Run `sequence` on the first frames of the folder, to the folder out or to what is given."""

    def run(*arguments, source=folder, out=tmp_path / "out", end=3):
        command = ["sequence", source, pictures[1], "-o", out, "--end", end, *arguments]
        return CliRunner(env={"NST_TARGET": target}).invoke(commands, [str(argument) for argument in command])

    return run


@pytest.fixture
def results(servicer, script):
    """Let the server answer with these pictures, one for each frame."""
    pictures = [encode(picture) for picture in moving_square(3)]
    servicer.attempts = [answer(script, picture) for picture in pictures]
    servicer.estimate.options.iterations = 500
    return pictures


def stylizations(servicer):
    """The requests, but for those that only ask how many iterations there would be."""
    return [request for request in servicer.requests if request.HasField("output")]


def test_each_frame_follows_from_the_result_before(*, run, servicer, results, folder, tmp_path):
    done = run("--temporal-weight", 7, "--scales", 2, "--init", "random", "--seed", 3, "--bits", 16)
    assert done.exit_code == 0, done.output
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["000001.png", "000002.png", "000003.png"]
    assert (tmp_path / "out" / "000003.png").read_bytes() == results[2]
    first, *others = stylizations(servicer)
    assert first.options == pb.TransferOptions(temporal_weight=7, scales=2, init=pb.INIT_RANDOM, seed=3)
    assert not first.HasField("init_picture")
    assert not first.HasField("reference")
    assert len(others) == 2
    for number, request in enumerate(others, start=2):
        assert request.content.data == (folder / f"{number}.png").read_bytes()
        # Half of what the server does by default.
        assert request.options == pb.TransferOptions(temporal_weight=7, scales=1, seed=3, iterations=250)
        assert request.init_picture == request.reference
        known = decode(request.reference_mask.data)[..., 0] > 0
        gap = decode(request.reference.data).astype(float) - decode(request.content.data)
        assert known.mean() > 0.8
        assert np.abs(gap)[known].mean() < 2
        assert request.output == pb.OutputOptions(format=pb.PICTURE_FORMAT_PNG, bits=16)


def test_the_lines_name_the_frame_and_what_is_left(run, results):
    lines = run().stderr.splitlines()
    assert any(line.startswith("frame 1 of 3: iteration 20/20, loss 12.5") for line in lines)
    assert any(line.startswith("frame 2 of 3, ") and "left: done after 20 iterations" in line for line in lines)
    assert lines[-1] == f"{len(results)} of 3 frames are finished"


def test_json_tells_which_frame_comes(run, results):
    events = [json.loads(line) for line in run("--json").stdout.splitlines()]
    frames = [event for event in events if event["event"] == "frame"]
    assert [(event["number"], event["name"]) for event in frames] == [(1, "1.png"), (2, "2.png"), (3, "3.png")]
    assert [event["event"] for event in events].count("saved") == len(results)


@pytest.mark.usefixtures("results")
def test_without_flow_a_frame_only_starts_from_the_result_before(run, servicer):
    assert run("--no-flow", "--follow-iterations", 5, "--start", 2).exit_code == 0
    first, second = servicer.requests
    assert not first.HasField("init_picture")
    assert second.init_picture.data == encode(moving_square(1)[0])
    assert second.options == pb.TransferOptions(iterations=5, scales=1)
    assert not second.HasField("reference")


def test_resume_goes_on_after_the_frames_that_are_there(*, run, servicer, script, results, tmp_path):
    servicer.attempts = servicer.attempts[:2]
    assert run(end=2).exit_code == 0
    servicer.attempts = [answer(script, results[2])]
    refused = run()
    assert refused.exit_code == 2
    assert "--resume continues after the frames of a folder" in " ".join(refused.stderr.split())
    assert run("--resume", "--iterations", 40).exit_code == 0
    assert (tmp_path / "out" / "000003.png").read_bytes() == results[2]
    last = servicer.requests[-1]
    assert last.options.iterations == 20
    assert last.HasField("reference")
    assert run("--resume").exit_code == 0
    assert servicer.requests[-1] is last


def test_a_video_goes_into_a_video(run, results, tmp_path):
    write_video(tmp_path / "clip.mp4", moving_square(3), rate=Fraction(24))
    done = run(source=tmp_path / "clip.mp4", out=tmp_path / "out.mp4", end=9)
    assert done.exit_code == 0, done.output
    footage = video.open_footage(tmp_path / "out.mp4")
    assert (footage.count, footage.rate) == (len(results), 24)


@pytest.mark.parametrize("out", ["out", "out.mp4"])
def test_a_failure_names_its_frame_and_keeps_those_before(*, run, servicer, failure, results, tmp_path, out):
    servicer.attempts[1] = [failure(grpc.StatusCode.INVALID_ARGUMENT, violations={"options.seed": "is -1"})]
    done = run(out=tmp_path / out)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-2:] == ["1 of 3 frames are finished", "Error: frame 2 (2.png): --seed: is -1"]
    if out == "out":
        assert (tmp_path / "out" / "000001.png").read_bytes() == results[0]
    else:
        assert video.open_footage(tmp_path / "out.mp4").count == 1


def test_a_frame_that_was_ended_early_is_not_kept(*, run, servicer, script, results, tmp_path):
    servicer.attempts[1] = answer(script, results[1], stop_reason=pb.STOP_REASON_SHUTDOWN)
    assert run().exit_code == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000001.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--no-flow", "--temporal-weight", "1"), "--temporal-weight and --no-flow exclude each other"),
        (("--format", "jpeg"), "--format does not apply: frames are PNG"),
        (("--min-size", "64"), "--min-size does not apply: frames are of one size"),
        (("--start", "5"), "--end 3 comes before --start 5"),
        (("--fps", "25"), "--fps needs a video as --out"),
        (("--out", "out.avi"), "out.avi is neither a folder nor an .mp4"),
        (("--out", "none/out/"), "does not exist"),
        (("--out", "out.mp4", "--resume"), "--resume needs a folder as --out"),
        (("--end", "20", "--start", "12"), "has 11 frames, there is no frame 12"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_and_no_call(run, servicer, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert servicer.requests == []


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_job_and_keeps_what_is_finished(*, start, servicer, script, folder, tmp_path, number):
    ended = threading.Event()
    servicer.attempts[1] = [script.accepted(), script.started(), lambda: ended.wait(SOON)]
    process = start("sequence", folder, folder / "1.png", "-o", tmp_path / "out.mp4", "--json")
    for _ in range(2):
        next(line for line in process.stdout if '"started"' in line)
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=SOON)
    ended.set()
    assert process.returncode == 130
    assert stderr.splitlines() == [
        "ending the running frame; press Ctrl-C again to leave at once",
        "1 of 11 frames are finished",
    ]
    assert video.open_footage(tmp_path / "out.mp4").count == 1


def test_without_the_extra_it_says_what_to_install(folder):
    code = "import sys; sys.modules['cv2'] = None; from nst_client.cli import main; main()"
    command = [sys.executable, "-c", code, "sequence", str(folder), str(folder / "1.png"), "-o", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: nst_client.video needs cv2: pip install 'nst-stylize[video]'\n"
