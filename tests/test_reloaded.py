import logging
from pathlib import Path

import pytest
from nst_service.reloaded import Reloaded, SettingError, read_file


def replace(path: Path, text: str) -> None:
    """Replace a file by another one that is renamed to its path, as programs usually do."""
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


def upper(path: Path) -> str:
    text = read_file(path).decode()
    if text == "wrong":
        raise SettingError("is wrong")
    return text.upper()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_text("first")
    return path


def test_a_value_is_read_once_while_its_file_stays_as_it_is(path: Path):
    reads: list[Path] = []
    value = Reloaded([path], lambda: (reads.append(path), upper(path))[1])
    assert [value.value, value.value] == ["FIRST", "FIRST"]
    assert len(reads) == 1


def test_a_value_follows_its_file(path: Path):
    value = Reloaded([path], lambda: upper(path))
    replace(path, "other")
    assert value.value == "OTHER"


@pytest.mark.parametrize("broken", ["wrong", None])
def test_a_value_stays_while_its_file_is_wrong_or_gone_which_is_logged_once(
    path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
):
    value = Reloaded([path], lambda: upper(path))
    if broken is None:
        path.unlink()
    else:
        replace(path, broken)
    assert [value.value, value.value] == ["FIRST", "FIRST"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    replace(path, "right")
    assert value.value == "RIGHT"


def test_a_file_that_is_wrong_from_the_beginning_is_an_error(path: Path):
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        Reloaded([path], lambda: upper(path.with_name("missing")))
