from collections import Counter

import numpy as np
import pytest
from PIL import Image

from bench.looks.files import Pictures
from bench.looks.pairs import Kind, Pair
from bench.looks.sheets import draw_sheet, read_key, shuffled, write_sheets
from bench.looks.votes import read_votes

COLOURS = {"new": "red", "old": "lime", "rival": "blue"}


@pytest.fixture
def pair(tmp_path):
    for name in ("content", "style"):
        Image.new("RGB", (400, 300), "grey").save(tmp_path / f"{name}.png")
    return Pair(
        name="cat-ink",
        kind=Kind.ANIMAL,
        content=tmp_path / "content.png",
        style=tmp_path / "style.png",
        sizes=(64,),
    )


@pytest.fixture
def pictures(tmp_path):
    pictures = Pictures(tmp_path / "results")
    for name, colour in COLOURS.items():
        path = pictures.path("cat-ink", 64, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), colour).save(path)
    (path.parent / ".unfinished.png").touch()
    return pictures


def _boxes(sheet: Image.Image, colour: str) -> tuple[int, int]:
    """Return the left and the upper edge of the picture of a colour on a sheet."""
    rgb = np.array(Image.new("RGB", (1, 1), colour))[0, 0]
    rows, columns = np.nonzero((np.asarray(sheet) == rgb).all(-1))
    return int(columns.min()), int(rows.min())


def test_each_judge_sees_every_case_once_and_every_contender_on_each_sheet(pair):
    cases = [(pair, 64, list(COLOURS)), (pair, 128, ["new", "old"])]
    sheets = shuffled(cases, 20, seed=1)
    assert len({sheet.name for sheet in sheets}) == len(sheets) == 40
    assert Counter(sheet.size for sheet in sheets) == {64: 20, 128: 20}
    assert {(sheet.size, *sorted(sheet.labels.values())) for sheet in sheets} == {
        (64, "new", "old", "rival"),
        (128, "new", "old"),
    }
    behind_a = Counter(sheet.labels["A"] for sheet in sheets if sheet.size == 64)
    assert set(behind_a) == set(COLOURS)


def test_the_seed_decides_the_shuffle(pair):
    cases = [(pair, 64, list(COLOURS))]
    assert shuffled(cases, 5, seed=1) == shuffled(cases, 5, seed=1) != shuffled(cases, 5, seed=2)


def test_the_results_stand_in_the_order_of_their_labels(pair):
    results = {label: Image.new("RGB", (64, 48), colour) for label, colour in zip("ABC", COLOURS.values(), strict=True)}
    places = [_boxes(draw_sheet(pair, results), colour) for colour in COLOURS.values()]
    assert [left for left, _ in places] == sorted({left for left, _ in places})
    assert len({top for _, top in places}) == 1


def test_small_results_are_enlarged_alike(pair):
    results = {label: Image.new("RGB", (100, 60), colour) for label, colour in zip("AB", ("red", "blue"), strict=True)}
    sheet = np.asarray(draw_sheet(pair, results))
    assert [(sheet == colour).all(-1).sum() for colour in ((255, 0, 0), (0, 0, 255))] == [200 * 120] * 2


def test_large_results_stand_in_two_rows(pair):
    colours = ("red", "lime", "blue", "yellow")
    results = {label: Image.new("RGB", (1024, 700), colour) for label, colour in zip("ABCD", colours, strict=True)}
    places = [_boxes(draw_sheet(pair, results), colour) for colour in colours]
    assert places[0][1] == places[1][1] < places[2][1] == places[3][1]
    assert places[0][0] == places[2][0] < places[1][0] == places[3][0]


def test_a_sheet_shows_whom_the_key_names_and_only_the_key_names_anybody(tmp_path, pair, pictures):
    assert pictures.sizes() == [64]
    contenders = pictures.contenders("cat-ink", 64)
    assert contenders == sorted(COLOURS)
    sheets = shuffled([(pair, 64, contenders)], 3, seed=5)
    folder, key = tmp_path / "sheets", tmp_path / "secret" / "key.json"
    write_sheets(sheets, [pair], pictures, folder=folder, key=key, seed=5)
    assert read_key(key) == sheets
    for sheet in sheets:
        judge = sheet.name[0]
        picture = Image.open(folder / judge / f"{sheet.name}.png")
        lefts = {label: _boxes(picture, COLOURS[contender])[0] for label, contender in sheet.labels.items()}
        assert sorted(lefts, key=lambda label: lefts[label]) == ["A", "B", "C"]
        assert not picture.info
        form = (folder / judge / "form.md").read_text()
        assert sheet.name in form
        assert not any(name in form for name in (*COLOURS, "cat-ink"))


def test_a_form_that_was_filled_in_is_read_and_one_that_was_not_has_no_votes(tmp_path, pair, pictures):
    sheets = shuffled([(pair, 64, list(COLOURS))], 1, seed=5)
    write_sheets(sheets, [pair], pictures, folder=tmp_path / "sheets", key=tmp_path / "key.json", seed=5)
    form = (tmp_path / "sheets" / "1" / "form.md").read_text()
    assert read_votes(form, sheets) == []
    (vote,) = read_votes(form.replace("1-01: \n", "1-01: B > A = C (soft)\n"), sheets)
    assert vote.ranks == {sheets[0].labels[label]: rank for label, rank in (("A", 1), ("B", 0), ("C", 1))}
