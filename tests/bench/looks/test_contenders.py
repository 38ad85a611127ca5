import pytest
from PIL import Image

from bench import ROOT
from bench.looks.contenders import Contender, ContenderError, ContenderKind, make_pictures
from bench.looks.files import Pictures
from bench.looks.pairs import Kind, Pair


def test_a_contender_is_a_name_with_what_makes_its_pictures(tmp_path):
    assert Contender.parse("today=nst:") == Contender(name="today", kind=ContenderKind.NST, arguments="")
    before = Contender.parse(f"before=nst@{tmp_path}:--preset reference --style-scale 0.5")
    assert before.checkout == tmp_path
    assert before.arguments == "--preset reference --style-scale 0.5"
    assert Contender.parse("pystiche=program:pystiche --iterations 5").checkout == ROOT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("today", "accepted is NAME=KIND:ARGUMENTS, KIND nst, program, command"),
        ("today=nst", "accepted is NAME=KIND"),
        ("../today=nst:", "accepted is NAME=KIND"),
        ("other=gimp:", "accepted is NAME=KIND"),
        ("other=program:gimp", "is the program 'gimp'; accepted are neural-style, pastiche, pystiche"),
        ("other=command@../before:cp", "has a checkout; only those of kind nst have one"),
    ],
)
def test_a_contender_that_is_written_wrongly_is_refused(text, message):
    with pytest.raises(ContenderError, match=message):
        Contender.parse(text)


@pytest.fixture
def pair(tmp_path):
    for name, size in (("content", (400, 300)), ("style", (100, 200))):
        Image.new("RGB", size, "grey").save(tmp_path / f"{name}.png")
    content, style = tmp_path / "content.png", tmp_path / "style.png"
    return Pair(name="cat-ink", kind=Kind.ANIMAL, content=content, style=style, sizes=(64, 128))


def _make(contender: Contender, pair: Pair, results: Pictures) -> None:
    wanted = [(pair, size) for size in pair.sizes]
    make_pictures(contender, wanted, results, cache=results.folder / "cache", threads=1)


def test_a_command_gets_the_pictures_at_the_size_that_nst_sees(tmp_path, pair):
    results = Pictures(tmp_path / "results")
    _make(Contender.parse("content=command:cp {content} {out}"), pair, results)
    _make(Contender.parse("style=command:cp {style} {out}"), pair, results)
    sizes = {
        (size, name): Image.open(results.path("cat-ink", size, name)).size
        for size in (64, 128)
        for name in ("content", "style")
    }
    assert sizes == {
        (64, "content"): (64, 48),
        (64, "style"): (32, 64),
        (128, "content"): (128, 96),
        (128, "style"): (64, 128),
    }


def test_a_picture_that_is_there_is_not_made_again(tmp_path, pair):
    results = Pictures(tmp_path / "results")
    path = results.path("cat-ink", 64, "copy")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"here already")
    _make(Contender.parse("copy=command:cp {content} {out}"), pair, results)
    assert path.read_bytes() == b"here already"
    assert results.path("cat-ink", 128, "copy").exists()


def test_a_contender_that_fails_leaves_no_picture(tmp_path, pair):
    results = Pictures(tmp_path / "results")
    with pytest.raises(ContenderError, match=r"broken ended with 1: .*cannot stat"):
        _make(Contender.parse("broken=command:cp /nonexistent {out}"), pair, results)
    assert results.contenders("cat-ink", 64) == []


def test_a_program_has_no_flag_but_the_iterations(tmp_path, pair):
    with pytest.raises(ContenderError, match="accepted is --iterations N"):
        _make(Contender.parse("pystiche=program:pystiche --steps 5"), pair, Pictures(tmp_path / "results"))
