import io
import json
import os
import signal
import subprocess
import sys
import threading

import grpc
import pytest
from click.testing import CliRunner
from nst.v1 import style_transfer_pb2 as pb
from nst_client import InvalidRequestError, NstError, TransferOptions, UnsupportedError
from nst_client.cli import commands
from nst_client.exploration import Cell, Grid, explore
from nst_client.metadata import read_metadata

Image = pytest.importorskip("PIL.Image")

from nst_client.media import sheet_writer  # noqa: E402 - after what it needs

SOON = 20.0
"""Seconds after which a test that waits has failed."""
GRID = Grid((0.25, 0.5, 1), (0, 1))
SIZE = (64, 48)
OPTIONS = {
    "preset": "fast",
    "style_weight": 3.0,
    "seed": 7,
    "image_size": 64,
    "min_image_size": 32,
    "iterations": 60,
    "scales": 2,
    "scale_iterations": [30, 30],
    "preview_every": 0,
}


def color_of(strength, stroke_size):
    return round(250 * strength), 100, round(250 * stroke_size)


def picture(strength, stroke_size, metadata):
    """A picture in one colour, with metadata as a server writes them."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if metadata:
        recipe = {
            "nst_stylize": "1.2.3",
            "weights": {"id": "caffe", "sha256": "aa"},
            "options": OPTIONS | {"strength": strength, "stroke_size": stroke_size},
            "output": {"format": "png", "quality": 95, "bits": 8},
            "styles": [{"weight": 1.0, "scale": 1.5}],
        }
        text.add_text("nst", json.dumps(recipe))
    Image.new("RGB", SIZE, color_of(strength, stroke_size)).save(buffer := io.BytesIO(), "PNG", pnginfo=text)
    return buffer.getvalue()


@pytest.fixture
def painting(servicer, script):
    """Let the server answer any number of requests; `before` may return more steps of a job, given its request."""

    def painting(before=lambda _: [], *, metadata=True, known=True):
        def job(request):
            own, options = type(script)(), request.options
            accepted = own.accepted(f"job-{options.strength:g}-{options.stroke_size:g}")
            if known:
                accepted.accepted.options.MergeFrom(options)
            data = picture(options.strength, options.stroke_size, metadata)
            return [accepted, own.started(), own.progress(20), *before(request), *own.picture(data)]

        servicer.attempts = [job] * 1000

    return painting


@pytest.fixture
def wait():
    """A step of a job that waits until the test is over."""
    over = threading.Event()
    yield lambda: over.wait(SOON)
    over.set()


def varied(servicer):
    return sorted((request.options.strength, request.options.stroke_size) for request in servicer.requests)


def finished(exploration):
    with exploration:
        list(exploration)
    return exploration


def test_every_strength_meets_every_stroke_size(client, servicer, painting, pictures):
    painting()
    exploration = finished(explore(client, pictures[0], pictures[1:], grid=GRID))
    assert varied(servicer) == [(0.25, 0), (0.25, 1), (0.5, 0), (0.5, 1), (1, 0), (1, 1)]
    assert set(exploration.results) == set(GRID.cells)
    for cell, result in exploration.results.items():
        assert Image.open(io.BytesIO(result.data)).getpixel((0, 0)) == color_of(cell.strength, cell.stroke_size)
    assert (Cell(3, 2, 1, 1) in GRID.cells, GRID.cells[0]) == (True, Cell(1, 1, 0.25, 0))
    for request in servicer.requests:
        assert [style.picture.data for style in request.styles] == [b"style.jpg", b"other.jpg"]
        assert (request.options.image_size, request.options.iterations) == (192, 60)
        assert request.output == pb.OutputOptions(format=pb.PICTURE_FORMAT_PNG)


def test_options_of_the_caller_hold_for_every_cell(client, servicer, painting, pictures):
    painting()
    options = TransferOptions(image_size=64, scale_iterations=(5, 3), tv_weight=2)
    finished(explore(client, *pictures[:2], grid=GRID, options=options, content_mask=pictures[2]))
    for request in servicer.requests:
        request.options.ClearField("strength")
        request.options.ClearField("stroke_size")
        assert request.options == pb.TransferOptions(image_size=64, scale_iterations=[5, 3], tv_weight=2)
        assert request.content_mask.data == b"other.jpg"


def test_no_more_cells_than_allowed_are_requested_at_once(client, painting):
    lock, running, most = threading.Lock(), [], []

    def enter():
        with lock:
            running.append(1)
            most.append(len(running))

    def leave():
        with lock:
            running.pop()

    painting(lambda _: [enter, lambda: threading.Event().wait(0.05), leave])
    finished(explore(client, b"content", b"style", grid=GRID, parallel=2))
    assert max(most) <= 2


def test_the_result_of_a_cell_is_there_as_soon_as_the_cell_is_completed(client, painting):
    painting()
    completed = []
    with explore(client, b"content", b"style", grid=GRID) as exploration:
        for cell, event in exploration:
            completed += [cell] if type(event).__name__ == "Completed" else []
            assert set(exploration.results) == set(completed)
    assert len(completed) == len(GRID.cells)


@pytest.mark.parametrize("name", ["strength", "stroke_size"])
def test_what_varies_cannot_be_an_option(client, servicer, name):
    with pytest.raises(InvalidRequestError, match=f"options.{name}: is set, but it is what varies"):
        explore(client, b"content", b"style", options=TransferOptions(**{name: 0.5}))
    assert servicer.requests == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "has 0 values, accepted are 1 to 10"),
        ((0.5,) * 11, "has 11 values"),
        ((0.5, 1.1), "has 1.1, accepted are values from 0 to 1"),
        ((float("nan"),), "has nan, accepted are values from 0 to 1"),
        ((0.5, 0.25, 0.5), "has a value twice"),
    ],
)
def test_a_grid_that_is_wrong_is_refused(values, message):
    with pytest.raises(InvalidRequestError, match=f"^strengths: {message}"):
        Grid(strengths=values)
    with pytest.raises(InvalidRequestError, match=f"^stroke_sizes: {message}"):
        Grid(stroke_sizes=values)


def test_a_cell_that_fails_is_named_and_ends_the_others(client, painting, failure, wait):
    first_is_done = threading.Event()

    def before(request):
        match request.options.strength, request.options.stroke_size:
            case 0.25, 0:
                return []
            case 0.5, 0:
                wrong = failure(grpc.StatusCode.INVALID_ARGUMENT, violations={"styles[0].scale": "is too small"})
                return [lambda: first_is_done.wait(SOON), wrong]
            case _:
                return [wait]

    painting(before)
    with explore(client, b"content", b"style", grid=GRID, parallel=2) as exploration:
        while not exploration.results:
            next(exploration)
        first_is_done.set()
        with pytest.raises(InvalidRequestError, match="because") as caught:
            list(exploration)
        assert caught.value.__notes__ == ["cell 2,1 (strength 0.5, stroke size 0)"]
        assert [cell.column for cell in exploration.results] == [1]
        assert next(exploration, None) is None


def test_a_closed_exploration_ends_its_jobs_and_starts_no_others(client, servicer, painting, wait):
    painting(lambda _: [wait])
    with explore(client, b"content", b"style", grid=GRID, parallel=2) as exploration:
        next(exploration)
        exploration.close()
        list(exploration)
    assert servicer.call_ended.wait(SOON)
    assert len(servicer.requests) <= 2
    assert not exploration.results


def test_a_server_that_would_make_all_cells_alike_is_named(client, painting):
    painting(known=False)
    with pytest.raises(UnsupportedError, match="neither strength nor stroke_size"):
        finished(explore(client, b"content", b"style", grid=GRID))


@pytest.fixture
def run(target):
    """Run the command line against the server."""

    def run(*arguments):
        return CliRunner(env={"NST_TARGET": target}).invoke(commands, [str(argument) for argument in arguments])

    return run


FLAGS = ("--strengths", "0.25,0.5,1", "--stroke-sizes", "0,1", "--size", 64)


@pytest.fixture
def sheet(run, painting, pictures, tmp_path):
    """Run `explore` with one style and return what it wrote."""

    def sheet(*arguments, name="sheet.jpg"):
        painting()
        done = run("explore", *pictures[:2], "-o", tmp_path / name, *FLAGS, *arguments)
        assert done.exit_code == 0, done.output
        return tmp_path / name

    return sheet


def places(path):
    """Where the colours of the cells are in a sheet: the mean position of each."""
    image = Image.open(path).convert("RGB")
    found = {}
    for cell in GRID.cells:
        near = [
            (x, y)
            for x in range(0, image.width, 2)
            for y in range(0, image.height, 2)
            if max(
                abs(one - two)
                for one, two in zip(image.getpixel((x, y)), color_of(cell.strength, cell.stroke_size), strict=True)
            )
            <= 8
        ]
        if near:
            found[cell.column, cell.row] = tuple(sum(values) / len(near) for values in zip(*near, strict=True))
    return found


def test_the_sheet_has_a_column_for_each_strength_and_a_row_for_each_stroke_size(sheet):
    found = places(sheet())
    assert len(found) == 6
    for column in (1, 2, 3):
        assert found[column, 1][1] + SIZE[1] < found[column, 2][1]
    for row in (1, 2):
        for column in (1, 2):
            assert found[column, row][0] + SIZE[0] < found[column + 1, row][0]


def test_the_sheet_is_labelled(sheet):
    image = Image.open(sheet(name="sheet.png")).convert("L")
    top, left = places(sheet(name="sheet.png"))[1, 1][1] - SIZE[1] / 2, places(sheet(name="sheet.png"))[1, 1][0]
    assert image.crop((round(left), 0, image.width, round(top) - 2)).getextrema() == (0, 255)
    assert image.crop((0, round(top), round(left - SIZE[0] / 2) - 2, image.height)).getextrema()[0] < 60


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.png", "sheet.webp", "sheet.tiff"])
def test_a_cell_is_made_large_with_the_options_of_its_look(*, sheet, run, servicer, pictures, tmp_path, name):
    path = sheet(name=name)
    done = run("stylize", *pictures[:2], "-o", tmp_path / "large.png", "--from", f"{path}:3,2", "--size", 1024)
    assert done.exit_code == 0, done.output
    request = servicer.requests[-1]
    # Size, scales and iterations are those of the preset, not of the small cell.
    assert request.options == pb.TransferOptions(
        preset=pb.PRESET_FAST, style_weight=3, seed=7, strength=1, stroke_size=1, image_size=1024
    )
    assert [style.scale for style in request.styles] == [1.5]
    assert read_metadata(path, (1, 2)).options.strength == 0.25


def test_scales_that_the_user_chose_are_part_of_the_look(sheet):
    assert read_metadata(sheet("--scales", 3), (1, 1)).options.scales == 3
    assert read_metadata(sheet("--scale-iterations", "9,9"), (1, 1)).options.scales == 2


def test_a_flag_overrides_what_a_cell_says(*, sheet, run, servicer, pictures, tmp_path):
    flags = ("--from", f"{sheet()}:1,1", "--strength", 0.9)
    assert run("stylize", *pictures[:2], "-o", tmp_path / "large.png", *flags).exit_code == 0
    options = servicer.requests[-1].options
    assert (options.strength, options.stroke_size) == (0.9, 0)


def test_a_sheet_takes_its_options_from_a_cell_of_another(sheet, servicer):
    recipe = sheet()
    servicer.requests.clear()
    sheet("--from", f"{recipe}:1,1", name="other.jpg")
    assert varied(servicer)[-1] == (1, 1)
    assert {request.options.style_weight for request in servicer.requests} == {3}
    assert {request.options.iterations for request in servicer.requests} == {60}


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (":4,1", "is a sheet of 3 columns and 2 rows, counted from 1: it has no cell 4,1"),
        (":1,3", "it has no cell 1,3"),
        (":0,1", "it has no cell 0,1"),
        ("", "is a sheet of 3 columns and 2 rows: name a cell by its column and row"),
        (":3", "'3' is not a cell, accepted are a column and a row"),
        (":a,b", "'a,b' is not a cell"),
        (":1,2,3", "'1,2,3' is not a cell"),
        (":", "'' is not a cell"),
    ],
)
def test_a_cell_that_is_not_there_is_a_usage_error(*, sheet, run, servicer, pictures, tmp_path, cell, message):
    path = sheet()
    servicer.requests.clear()
    done = run("stylize", *pictures[:2], "-o", tmp_path / "large.png", "--from", f"{path}{cell}")
    assert (done.exit_code, servicer.requests) == (2, [])
    assert message in " ".join(done.stderr.split())


def test_a_picture_has_no_cells(*, run, pictures, tmp_path):
    (tmp_path / "one.png").write_bytes(picture(0.5, 0.5, metadata=True))
    (tmp_path / "none.png").write_bytes(picture(0.5, 0.5, metadata=False))
    for name, message in (("one.png", "is one picture and no sheet"), ("none.png", "does not say how it was made")):
        done = run("stylize", *pictures[:2], "-o", tmp_path / "large.png", "--from", f"{tmp_path / name}:1,1")
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())


def test_a_missing_sheet_is_named(run, pictures, tmp_path):
    done = run("stylize", *pictures[:2], "-o", tmp_path / "large.png", "--from", tmp_path / "no.jpg:1,1")
    assert done.exit_code == 2
    assert "no.jpg:1,1: cannot be read: No such file" in " ".join(done.stderr.split())


def test_a_file_may_have_a_name_that_ends_like_a_cell(run, servicer, painting, pictures, tmp_path):
    painting()
    path = tmp_path / "made:3,2"
    path.write_bytes(picture(0.25, 1, metadata=True))
    assert run("stylize", *pictures[:2], "-o", tmp_path / "large.png", "--from", path).exit_code == 0
    assert servicer.requests[-1].options.strength == 0.25


def test_a_sheet_without_metadata_has_no_recipe(sheet):
    with pytest.raises(InvalidRequestError, match="does not say how it was made by nst, as a sheet of `explore` does"):
        read_metadata(sheet("--no-metadata"), (1, 1))


def test_pictures_without_metadata_cost_the_recipe_only(client, painting, tmp_path):
    painting(metadata=False)
    exploration = finished(explore(client, b"content", b"style", grid=GRID))
    assert not sheet_writer(tmp_path / "sheet.jpg").write(exploration).has_metadata
    assert len(places(tmp_path / "sheet.jpg")) == 6


def test_a_sheet_of_the_most_cells_fits_into_the_metadata_of_a_jpeg(client, painting, tmp_path):
    painting()
    most = tuple(index / 9 for index in range(10))
    exploration = finished(explore(client, b"content", b"style", grid=Grid(most, most)))
    assert sheet_writer(tmp_path / "sheet.jpg").write(exploration).has_metadata
    assert read_metadata(tmp_path / "sheet.jpg", (10, 9)).options.stroke_size == most[8]


def test_the_progress_names_the_cell_and_how_many_are_done(run, painting, pictures, tmp_path):
    painting()
    out = tmp_path / "my sheet.jpg"
    done = run("explore", *pictures, "-o", out, *FLAGS)
    assert (done.exit_code, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert any(line.startswith("0 of 6 cells, cell ") and "accepted: 64x48" in line for line in lines)
    assert any(line.startswith("6 of 6 cells, 0.0 s left, cell ") and "done after 20" in line for line in lines)
    assert lines[-2].startswith(f"wrote {out}: ")
    command = f"nst-client stylize {pictures[0]} {pictures[1]} {pictures[2]} -o FILE --from '{out}':COLUMN,ROW"
    assert lines[-1] == f"make a cell large: {command}"


def test_json_names_the_cell_before_each_event(run, painting, pictures, tmp_path):
    painting()
    done = run("explore", *pictures[:2], "-o", tmp_path / "sheet.jpg", *FLAGS, "--json")
    *events, saved = [json.loads(line) for line in done.stdout.splitlines()]
    cells, others = events[::2], events[1::2]
    assert {event["event"] for event in cells} == {"cell"}
    accepted = [cell for cell, event in zip(cells, others, strict=True) if event["event"] == "accepted"]
    assert sorted((cell["column"], cell["row"]) for cell in accepted) == [(c, r) for c in (1, 2, 3) for r in (1, 2)]
    assert (saved["event"], saved["media_type"]) == ("saved", "image/jpeg")
    assert saved["size_bytes"] == (tmp_path / "sheet.jpg").stat().st_size


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--strength", 0.5), "--strength does not apply"),
        (("--stroke-size", 0.5), "--stroke-size does not apply"),
        (("--bits", 16), "--bits does not apply"),
        (("--quality", 0), "--quality is 0; accepted values are 1 to 100"),
        (("--strengths", "0,x"), "'0,x' is not a list of numbers"),
        (("--strengths", "0,2"), "--strengths: has 2, accepted are values from 0 to 1"),
        (("--stroke-sizes", "1,1"), "--stroke-sizes: has a value twice"),
        (("-o", "-", "--json"), "--json and '-' exclude each other"),
        (("-o", "sheet.bmp"), "has no suffix of a picture"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_and_no_call(*, run, servicer, pictures, tmp_path, flags, message):
    done = run("explore", *pictures[:2], "-o", tmp_path / "sheet.jpg", *flags)
    assert (done.exit_code, servicer.requests) == (2, [])
    assert message in " ".join(done.stderr.split())


def test_a_failure_names_its_cell_and_keeps_what_is_finished(*, run, painting, failure, pictures, tmp_path):
    def before(request):
        if request.options.strength < 1:
            return []
        return [failure(grpc.StatusCode.INVALID_ARGUMENT, violations={"styles[0].scale": "is too small"})]

    painting(before)
    done = run("explore", *pictures[:2], "-o", tmp_path / "sheet.jpg", *FLAGS, "--parallel", 1)
    assert done.exit_code == 2
    assert "Error: cell 3,1 (strength 1, stroke size 0): --style-scale 1: is too small" in done.stderr
    assert set(places(tmp_path / "sheet.jpg")) == {(1, 1), (2, 1)}
    assert read_metadata(tmp_path / "sheet.jpg", (3, 2)).options.strength == 1


def test_an_interrupt_keeps_what_is_finished(*, start, painting, wait, pictures, tmp_path):
    painting(lambda request: [] if request.options.strength < 1 else [wait])
    process = start("explore", *pictures[:2], "-o", tmp_path / "sheet.jpg", *FLAGS, "--parallel", 1, "--json")
    next(line for line in process.stdout if "job-1-0" in line)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "ending the running cells" in stderr
    assert "Traceback" not in stderr
    assert set(places(tmp_path / "sheet.jpg")) == {(1, 1), (2, 1)}


def test_an_interrupt_before_any_cell_is_finished_writes_nothing(*, start, painting, wait, pictures, tmp_path):
    painting(lambda _: [wait])
    process = start("explore", *pictures[:2], "-o", tmp_path / "sheet.jpg", *FLAGS, "--json")
    next(line for line in process.stdout if "accepted" in line)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=SOON)
    assert (process.returncode, "Traceback" in stderr) == (130, False)
    assert not (tmp_path / "sheet.jpg").exists()


def test_without_the_extra_it_says_what_to_install(pictures, tmp_path):
    code = "import sys; sys.modules['PIL'] = None; from nst_client.cli import main; main()"
    arguments = ["explore", *pictures[:2], "-o", tmp_path / "sheet.jpg"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "explore needs pillow: pip install 'nst-stylize[media]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_exploration_without_results_has_no_sheet(client, painting, failure, tmp_path):
    painting(lambda _: [failure(grpc.StatusCode.INTERNAL)])
    exploration = explore(client, b"content", b"style", grid=GRID)
    with exploration, pytest.raises(NstError):
        list(exploration)
    with pytest.raises(ValueError, match="no cell of the exploration is completed"):
        sheet_writer(tmp_path / "sheet.jpg").write(exploration)
