import pytest

from bench.looks.pairs import Kind, Pair, PairsError, read_pairs, write_pairs


@pytest.fixture
def folder(tmp_path):
    for name in ("content/cat.png", "style/ink.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


def _pairs(folder, *names):
    content, style = folder / "content" / "cat.png", folder / "style" / "ink.png"
    return [Pair(name=name, kind=Kind.ANIMAL, content=content, style=style, sizes=(256, 512)) for name in names]


def test_pairs_that_are_written_are_read_as_they_were(folder):
    pairs = _pairs(folder, "cat-ink", "cat-ink-again")
    write_pairs(folder / "pairs.toml", pairs)
    assert read_pairs(folder / "pairs.toml") == pairs
    assert read_pairs(folder / "pairs.toml", ["cat-ink-again"]) == pairs[1:]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('kind = "animal"', 'kind = "cat"', r"cat-ink.kind is 'cat'; accepted are person, animal"),
        ("sizes = [256, 512]", "sizes = []", r"cat-ink.sizes is \[\]; accepted is"),
        ("sizes = [256, 512]", "sizes = 256", r"cat-ink.sizes is 256; accepted is"),
        ("style/ink.png", "style/missing.png", r"cat-ink.style is .*missing.png, which is no file"),
        ('name = "cat-ink"', 'title = "cat-ink"', r"has content, kind, sizes, style, title; accepted is .*name"),
        ("[[pair]]", "[[pair", "pairs.toml"),
        ("[[pair]]", "[[other]]", "has 0 names for 0 pairs"),
    ],
)
def test_a_fault_in_a_pairs_file_is_named_with_what_is_accepted(folder, before, after, message):
    path = folder / "pairs.toml"
    write_pairs(path, _pairs(folder, "cat-ink"))
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(PairsError, match=message):
        read_pairs(path)


def test_a_name_that_the_file_lacks_or_has_twice_is_refused(folder):
    path = folder / "pairs.toml"
    write_pairs(path, _pairs(folder, "cat-ink"))
    with pytest.raises(PairsError, match="has no pair dog-ink; it has cat-ink"):
        read_pairs(path, ["dog-ink"])
    write_pairs(path, _pairs(folder, "cat-ink", "cat-ink"))
    with pytest.raises(PairsError, match="has 1 names for 2 pairs"):
        read_pairs(path)
