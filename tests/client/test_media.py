import io
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from nst.v1 import style_transfer_pb2 as pb
from nst_client.cli import commands

pytest.importorskip("matplotlib")
av = pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (180, 180, 40)]
FINAL = (120, 60, 180)


def picture(color, size=(64, 48), kind="JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB" if len(color) == 3 else "RGBA", size, color).save(buffer, kind)
    return buffer.getvalue()


def close(color, other):
    return all(abs(one - two) <= 6 for one, two in zip(color, other, strict=True))


@pytest.fixture
def run(script):
    """The events of a run over two scales, whose previews are half as large at the first."""
    accepted = script.accepted()
    accepted.accepted.options.preset = pb.PRESET_FAST
    accepted.accepted.options.preview_size = 32
    events = [accepted, script.started()]
    for step, color in enumerate(COLOURS):
        iteration, scale = (step + 1) * 5, step // 2 + 1
        progress = script.progress(iteration, loss=30.0)
        progress.progress.MergeFrom(pb.Progress(scale=scale, scales=2))
        del progress.progress.terms[:]
        progress.progress.terms.extend(
            [
                pb.LossTerm(kind=pb.LOSS_KIND_CONTENT, layer="relu4_2", value=step),
                pb.LossTerm(kind=pb.LOSS_KIND_STYLE, layer="relu1_1", value=10),
                pb.LossTerm(kind=pb.LOSS_KIND_STYLE, layer="relu2_1", value=15),
                pb.LossTerm(kind=pb.LOSS_KIND_TOTAL_VARIATION, value=1e-3),
            ]
        )
        width, height = (16, 12) if scale == 1 else (32, 24)
        data = picture(color, (width, height))
        preview = pb.Preview(iteration=iteration, media_type="image/jpeg", width=width, height=height, data=data)
        events += [progress, script.event(preview=preview)]
    return events


@pytest.fixture
def stylize(target, pictures, tmp_path):
    """Run `stylize` with one style, to out.png."""

    def stylize(*arguments):
        arguments = ["stylize", *pictures[:2], "-o", tmp_path / "out.png", *arguments]
        return CliRunner(env={"NST_TARGET": target}).invoke(commands, [str(argument) for argument in arguments])

    return stylize


@pytest.fixture
def finished(run, script):
    """The events of the run, with a final picture."""
    return [*run, *script.picture(picture(FINAL, kind="PNG"))]


def texts(svg):
    """The words in an SVG."""
    return [text for element in ElementTree.fromstring(svg).iter() for text in [(element.text or "").strip()] if text]


def test_the_plot_has_a_line_for_the_total_and_one_for_each_kind_of_loss(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    done = stylize("--plot", tmp_path / "loss.svg")
    assert done.exit_code == 0, done.output
    assert f"wrote {tmp_path / 'loss.svg'}" in done.stderr
    words = texts((tmp_path / "loss.svg").read_bytes())
    assert {"total", "content", "style", "total variation"} < set(words)
    assert "laplacian" not in words
    assert "fast, 64x48" in words


def test_the_plot_says_that_losses_of_scales_do_not_compare(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    stylize("--plot", tmp_path / "loss.svg")
    notes = [text for text in texts((tmp_path / "loss.svg").read_bytes()) if "not comparable" in text]
    assert notes == ["scale 2: losses not comparable with those before"]


def test_the_losses_of_a_kind_are_summed_over_the_layers(script):
    from nst_client.media.losses import LossPlot
    from nst_client.translate import event_from_proto

    message = script.progress(1)
    message.progress.terms.add(kind=pb.LOSS_KIND_STYLE, layer="relu2_1", value=2.5)
    plot = LossPlot("loss.svg")
    plot.event(event_from_proto(message))
    (axes,) = plot._figure().axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == {"total": [12.5], "style": [15.0]}


def test_the_same_run_gives_the_same_plot(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished, finished]
    paths = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for path in paths:
        stylize("--plot", path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_plot_can_be_a_png(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    stylize("--plot", tmp_path / "loss.PNG")
    with Image.open(tmp_path / "loss.PNG") as plot:
        assert (plot.format, plot.width > 1000) == ("PNG", True)


def test_losses_that_cannot_be_drawn_leave_gaps(stylize, servicer, script, tmp_path):
    accepted, losses = script.accepted(), [float("inf"), float("nan"), 0.0, 3.0]
    progress = [script.progress(iteration, loss) for iteration, loss in enumerate(losses)]
    servicer.attempts = [[accepted, *progress, *script.picture()]]
    assert stylize("--plot", tmp_path / "loss.svg").exit_code == 0
    assert "total" in texts((tmp_path / "loss.svg").read_bytes())


def test_every_preview_and_the_final_picture_become_frames(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    folder = tmp_path / "frames"
    done = stylize("--frames", folder)
    assert done.exit_code == 0, done.output
    assert f"wrote {folder}" in done.stderr
    names = ["000005.jpg", "000010.jpg", "000015.jpg", "000020.jpg", "contact-sheet.jpg"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / "000005.jpg").read_bytes() == picture(COLOURS[0], (16, 12))
    with Image.open(folder / "000020.jpg") as last:
        assert last.size == (32, 24)
        assert close(last.getpixel((16, 12)), FINAL)


def test_the_contact_sheet_shows_sixteen_frames_at_most_with_the_first_and_the_last(tmp_path):
    from nst_client.media.frames import _contact_sheet, _evenly

    files = {iteration: tmp_path / f"{iteration}.jpg" for iteration in range(10, 510, 10)}
    for iteration, path in files.items():
        path.write_bytes(picture((iteration // 2, 0, 0), (100, 50)))
    chosen = _evenly(list(files), 16)
    assert (len(set(chosen)), chosen[0], chosen[-1]) == (16, 10, 500)
    sheet = _contact_sheet(files)
    assert 4 * 100 < sheet.width < 5 * 100
    # The corners of the grid; red is half of the iteration.
    for position, red in (((20, 20), 5), ((sheet.width - 20, sheet.height - 60), 250)):
        assert close(sheet.getpixel(position), (red, 0, 0))


def test_a_result_with_transparency_is_shown_on_white(stylize, servicer, run, script, tmp_path):
    servicer.attempts = [[*run, *script.picture(picture((0, 0, 0, 0), kind="PNG"))]]
    stylize("--frames", tmp_path / "frames")
    with Image.open(tmp_path / "frames" / "000020.jpg") as last:
        assert close(last.getpixel((16, 12)), (255, 255, 255))


def test_an_mp4_shows_every_preview_and_holds_the_final_picture(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    done = stylize("--timelapse", tmp_path / "film.mp4")
    assert done.exit_code == 0, done.output
    with av.open(tmp_path / "film.mp4") as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
        frames = [frame.to_image() for frame in film.decode(stream)]
    assert {frame.size for frame in frames} == {(32, 24)}
    assert len(frames) == len(COLOURS) + 20
    for frame, color in zip(frames, [*COLOURS, *[FINAL] * 20], strict=True):
        assert close(frame.getpixel((16, 12)), color)


def test_an_mp4_has_even_edges():
    from nst_client.media.mp4 import Mp4

    film = Mp4((33, 1))
    film.add(picture(FINAL, (33, 1)), frames=1)
    with av.open(io.BytesIO(film.encoded())) as opened:
        assert (opened.streams.video[0].width, opened.streams.video[0].height) == (32, 2)


def test_an_mp4_without_x264_is_mpeg4(monkeypatch):
    from av.codec.codec import UnknownCodecError
    from nst_client.media import mp4

    class WithoutX264:
        def __init__(self, container):
            self.container = container

        def add_stream(self, name, **options):
            if name == "libx264":
                raise UnknownCodecError(name)
            return self.container.add_stream(name, **options)

        def __getattr__(self, name):
            return getattr(self.container, name)

    really_open = av.open
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", lambda *arguments, **options: WithoutX264(really_open(*arguments, **options)))
        film = mp4.Mp4((64, 48))
    film.add(picture(FINAL), frames=3)
    with av.open(io.BytesIO(film.encoded())) as opened:
        assert opened.streams.video[0].codec_context.name == "mpeg4"
        assert [close(frame.to_image().getpixel((32, 24)), FINAL) for frame in opened.decode(video=0)] == [True] * 3


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_shows_every_preview_and_holds_the_final_picture(stylize, servicer, finished, tmp_path, suffix):
    servicer.attempts = [finished]
    done = stylize("--timelapse", tmp_path / f"film{suffix}")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / f"film{suffix}") as film:
        assert (film.size, film.n_frames, film.info["loop"]) == ((32, 24), len(COLOURS) + 1, 0)
        for index, color in enumerate([*COLOURS, FINAL]):
            film.seek(index)
            film.load()
            assert close(film.convert("RGB").getpixel((16, 12)), color)
            assert film.info["duration"] == (2000 if color == FINAL else 100)


@pytest.mark.parametrize("flag", ["--frames", "--timelapse"])
def test_what_is_made_of_previews_asks_for_them(stylize, servicer, finished, tmp_path, flag):
    servicer.attempts = [finished, finished]
    assert stylize(flag, tmp_path / "made.gif", "--iterations", "400").exit_code == 0
    assert stylize(flag, tmp_path / "made.gif", "--preview-every", "5", "--preview-size", "32").exit_code == 0
    first, second = (request.options for request in servicer.requests)
    assert (first.preview_every, second.preview_every, second.preview_size) == (20, 5, 32)


def test_a_plot_asks_for_no_previews(stylize, servicer, finished, tmp_path):
    servicer.attempts = [finished]
    stylize("--plot", tmp_path / "loss.svg")
    assert not servicer.requests[0].options.HasField("preview_every")


def test_what_a_job_repeats_from_its_checkpoint_is_shown_once(*, stylize, servicer, run, lost, script, tmp_path):
    again = [pb.JobEvent.FromString(event.SerializeToString()) for event in run[4:]]
    for number, event in enumerate(again, start=script.sequence + 1):
        event.sequence = number
    script.sequence += len(again)
    servicer.attempts = [[*run, lost]]
    servicer.watch_attempts = [[*again, *script.picture(picture(FINAL, kind="PNG"))]]
    done = stylize("--plot", tmp_path / "loss.svg", "--timelapse", tmp_path / "film.gif")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == len(COLOURS) + 1
    notes = [text for text in texts((tmp_path / "loss.svg").read_bytes()) if "not comparable" in text]
    assert len(notes) == 1


def test_a_plot_forgets_what_a_job_repeats(script):
    from nst_client.media.losses import LossPlot
    from nst_client.translate import event_from_proto

    plot = LossPlot("loss.svg")
    for scale, iteration in ((1, 1), (1, 5), (2, 6), (2, 9), (1, 4), (1, 5), (2, 6)):
        message = script.progress(iteration, loss=float(iteration))
        message.progress.MergeFrom(pb.Progress(scale=scale, scales=2))
        plot.event(event_from_proto(message))
    (axes,) = plot._figure().axes
    (total,) = [line for line in axes.lines if line.get_label() == "total"]
    assert [point for point in total.get_xdata() if point == int(point)] == [1, 4, 5, 6]


@pytest.fixture
def everything(tmp_path):
    """The flags for every output, and their paths."""
    paths = [tmp_path / "loss.svg", tmp_path / "frames" / "contact-sheet.jpg", tmp_path / "film.mp4"]
    return ["--plot", paths[0], "--frames", paths[1].parent, "--timelapse", paths[2]], paths


def test_a_cancelled_run_keeps_everything(stylize, servicer, run, script, everything):
    flags, paths = everything
    data = picture(FINAL, kind="PNG")
    servicer.attempts = [[*run, *script.picture(data, stop_reason=pb.STOP_REASON_CANCELLED)]]
    assert stylize(*flags).exit_code == 130
    assert [path.is_file() for path in paths] == [True] * 3


def test_a_run_that_fails_keeps_what_there_is(*, stylize, servicer, run, failure, everything, tmp_path):
    import grpc

    flags, paths = everything
    servicer.attempts = [[*run, failure(grpc.StatusCode.INTERNAL, "lost", reason="LOSS_NOT_FINITE")]]
    done = stylize(*flags)
    assert (done.exit_code, "Error: lost" in done.stderr) == (1, True)
    assert [path.is_file() for path in paths] == [True] * 3
    assert not (tmp_path / "out.png").exists()
    with av.open(paths[2]) as film:
        assert len(list(film.decode(video=0))) == len(COLOURS)


def test_a_run_that_never_begins_leaves_nothing(stylize, servicer, failure, everything):
    import grpc

    flags, paths = everything
    servicer.attempts = [[failure(grpc.StatusCode.INVALID_ARGUMENT)]]
    assert stylize(*flags).exit_code == 2
    assert [path.exists() for path in paths] == [False] * 3
    assert not paths[1].parent.exists()


def test_a_result_that_is_no_picture_is_named_and_stays_written(stylize, servicer, run, script, tmp_path):
    servicer.attempts = [[*run, *script.picture(b"no picture")]]
    done = stylize("--frames", tmp_path / "frames")
    assert done.exit_code == 1
    assert "cannot identify image file" in done.stderr
    assert (tmp_path / "out.png").read_bytes() == b"no picture"


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--plot", "loss.pdf", "has none of the suffixes .png, .svg"),
        ("--plot", "loss", "has none of the suffixes .png, .svg"),
        ("--plot", "none/loss.svg", "does not exist"),
        ("--timelapse", "film.avi", "has none of the suffixes .mp4, .webp, .gif"),
        ("--timelapse", "none/film.mp4", "does not exist"),
        ("--frames", "content.jpg", "is a file, expected is a directory"),
        ("--frames", "none/frames", "does not exist"),
    ],
)
def test_an_output_that_cannot_be_made_is_a_usage_error_and_no_call(
    *, stylize, servicer, tmp_path, flag, name, message
):
    done = stylize(flag, tmp_path / name)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert servicer.requests == []


@pytest.mark.parametrize(("flag", "name"), [("--plot", "a.svg"), ("--frames", ""), ("--frames", "new")])
def test_a_folder_that_may_not_be_written_is_refused(*, stylize, servicer, tmp_path, monkeypatch, flag, name):
    folder = tmp_path / "locked"
    folder.mkdir()
    monkeypatch.setattr("os.access", lambda path, _: path != folder)
    done = stylize(flag, folder / name)
    assert (done.exit_code, "permission denied" in done.stderr) == (2, True)
    assert servicer.requests == []


@pytest.mark.parametrize(
    ("flag", "name", "module", "library"),
    [
        ("--plot", "loss.svg", "matplotlib", "matplotlib"),
        ("--frames", "frames", "PIL", "pillow"),
        ("--timelapse", "film.gif", "PIL", "pillow"),
        ("--timelapse", "film.mp4", "av", "av"),
    ],
)
def test_a_library_that_is_missing_is_named_with_what_to_install(*, pictures, tmp_path, flag, name, module, library):
    code = f"import sys; sys.modules[{module!r}] = None; from nst_client.cli import main; main()"
    arguments = ["stylize", *pictures[:2], "-o", tmp_path / "out.png", flag, tmp_path / name]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{flag} needs {library}: pip install 'nst-stylize[media]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gif_does_not_need_av():
    code = "import sys, pathlib; sys.modules['av'] = None; from nst_client.media import record_timelapse"
    code += "; record_timelapse(pathlib.Path('film.gif'))"
    subprocess.run([sys.executable, "-c", code], check=True)
