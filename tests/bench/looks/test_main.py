import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from bench.looks.__main__ import main
from bench.looks.pairs import Kind, Pair, write_pairs


def _picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    values = sum(sigma * ndimage.gaussian_filter(noise, (sigma, sigma, 0)) for sigma in (0.7, 2, 6))
    return Image.fromarray((255 * np.clip(0.5 + 0.1 * values, 0, 1)).astype(np.uint8))


@pytest.fixture
def pairs(tmp_path):
    content, style = tmp_path / "content.png", tmp_path / "style.png"
    _picture(1, 160, 120).save(content)
    _picture(2, 160, 120).save(style)
    pairs = [Pair(name=name, kind=Kind.THING, content=content, style=style, sizes=(96,)) for name in ("one", "two")]
    write_pairs(tmp_path / "pairs.toml", pairs)
    return str(tmp_path / "pairs.toml")


def test_pictures_become_sheets_votes_and_a_table(tmp_path, pairs, capsys):
    results, sheets, key = (str(tmp_path / name) for name in ("results", "sheets", "key.json"))
    contenders = ("--contender", "photo=command:cp {content} {out}", "--contender", "paint=command:cp {style} {out}")
    assert main(["make", pairs, results, "--sizes", "96", *contenders]) == 0
    assert main(["sheets", pairs, results, sheets, "--key", key, "--judges", "2"]) == 0
    for form in sorted((tmp_path / "sheets").rglob("form.md")):
        text = form.read_text()
        for sheet in json.loads((tmp_path / "key.json").read_text())["sheets"]:
            label = {contender: label for label, contender in sheet["labels"].items()}
            text = text.replace(f"{sheet['name']}: \n", f"{sheet['name']}: {label['paint']} > {label['photo']}\n")
        form.write_text(text)
    capsys.readouterr()
    assert main(["votes", key, *map(str, (tmp_path / "sheets").rglob("form.md"))]) == 0
    counted = capsys.readouterr().out
    assert "not judged" not in counted
    assert "100 % (4 : 0 : 0)" in counted
    # The style itself follows the style; the photograph misses the goals.
    assert main(["table", pairs, results, "--contenders", "paint", "--json", str(tmp_path / "all.json")]) == 0
    assert "paint, 96 px, 2 pairs" in capsys.readouterr().out
    assert [one["pair"] for one in json.loads((tmp_path / "all.json").read_text())] == ["one", "two"]


def test_a_goal_that_is_missed_gives_another_exit_code(tmp_path, pairs, capsys):
    results = tmp_path / "results"
    blurred = results / "96" / "one" / "soft.png"
    blurred.parent.mkdir(parents=True)
    style = np.asarray(Image.open(tmp_path / "style.png").resize((96, 72)), float)
    Image.fromarray(ndimage.gaussian_filter(style, (2, 2, 0)).astype(np.uint8)).save(blurred)
    assert main(["table", pairs, str(results)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_the_others_are_made_where_one_contender_fails(tmp_path, pairs, capsys):
    contenders = ("--contender", "bad=command:false", "--contender", "good=command:cp {content} {out}")
    assert main(["make", pairs, str(tmp_path / "results"), "--sizes", "96", *contenders]) == 1
    assert (tmp_path / "results" / "96" / "two" / "good.png").exists()
    assert "bad ended with 1" in capsys.readouterr().err


def test_a_pairs_file_that_is_missing_is_named(tmp_path, capsys):
    assert main(["table", str(tmp_path / "nothing.toml"), str(tmp_path)]) == 1
    assert "nothing.toml" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["table"], ["faces"]])
def test_a_folder_without_results_meets_no_goal(tmp_path, pairs, capsys, command):
    assert main([*command, pairs, str(tmp_path)]) == 1
    assert "has no result of these pairs" in capsys.readouterr().err


def test_larger_results_and_previews_are_compared_at_the_smaller_size(tmp_path, capsys):
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    _picture(3, 256, 192).save(large)
    Image.open(large).resize((128, 96), Image.Resampling.LANCZOS).save(small)
    assert main(["sizes", str(small), str(large)]) == 0
    assert "1.00 / 1.00" in capsys.readouterr().out
    assert main(["similarity", str(large), str(small)]) == 0
    assert "1.000" in capsys.readouterr().out
