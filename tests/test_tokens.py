import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner
from nst_service.cli import main
from nst_service.jobs.quotas import Owner, Quota
from nst_service.reloaded import SettingError
from nst_service.tokens import find, follow, format_entry, make_token

HASH = "0" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def made(*arguments: str) -> tuple[str, str]:
    """Return a token that the command line makes, and its entry."""
    done = CliRunner().invoke(main, ["token", *arguments])
    assert done.exit_code == 0, done.output
    return done.stderr.rsplit(maxsplit=1)[-1], done.stdout


def test_a_token_made_on_the_command_line_is_found_by_its_entry(path: Path):
    token, entry = made("web-shop", "--jobs", "2", "--pixels", "4000000", "--iterations", "1000")
    path.write_text(entry)
    assert find(follow(path).value, token) == Owner(
        name="web-shop", quota=Quota(jobs=2, pixels=4_000_000, iterations=1000)
    )


def test_a_token_without_quotas_has_none(path: Path):
    token, entry = made("web-shop")
    path.write_text(entry)
    assert find(follow(path).value, token) == Owner(name="web-shop", quota=Quota())


def test_the_command_line_offers_every_quota():
    told = CliRunner().invoke(main, ["token", "--help"]).output
    assert all(f"--{field.name}" in told for field in dataclasses.fields(Quota))


def test_entries_can_be_appended_and_owners_can_have_several_tokens(path: Path):
    tokens, entries = zip(*(made(owner) for owner in ("ann", "bob", "ann")), strict=True)
    path.write_text("".join(entries))
    found = follow(path).value
    assert [find(found, token).name for token in tokens] == ["ann", "bob", "ann"]


def test_an_entry_holds_nothing_of_the_token():
    token = make_token()
    entry = format_entry(token, "ann", {})
    assert not any(token[start : start + 8] in entry for start in range(len("nst_"), len(token) - 8))


def test_tokens_differ_and_can_travel_in_a_header():
    tokens = {make_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(token.isascii() and token.isprintable() and " " not in token for token in tokens)


@pytest.mark.parametrize("wrong", ["", "nst_", "another", "é", "\N{SNOWMAN}"])
def test_a_token_that_was_not_made_is_nobodys(path: Path, wrong: str):
    path.write_text(made("ann")[1])
    assert find(follow(path).value, wrong) is None


def test_without_entries_every_token_is_nobodys(path: Path):
    path.write_text("")
    assert find(follow(path).value, make_token()) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[token]", "cannot be read as TOML"),
        ("name = 1", r"may contain only \[\[token\]\] entries"),
        ("token = 1", r"may contain only \[\[token\]\] entries"),
        ("token = [1]", r"may contain only \[\[token\]\] entries"),
        (f'[[token]]\nsha256 = "{HASH}"', "token 1: owner is None"),
        (f'[[token]]\nowner = "a b"\nsha256 = "{HASH}"', "owner is 'a b'; it must be"),
        ('[[token]]\nowner = "ann"', "sha256 is not the SHA-256 of a token"),
        (f'[[token]]\nowner = "ann"\nsha256 = "{HASH}"\njobs = -1', "jobs is -1; it must be an integer of 0 or more"),
        (f'[[token]]\nowner = "ann"\nsha256 = "{HASH}"\njobs = true', "jobs is True; it must be an integer"),
        (f'[[token]]\nowner = "ann"\nsha256 = "{HASH}"\npixel = 1', "unknown key 'pixel'; the keys are owner, sha256"),
        (2 * f'[[token]]\nowner = "ann"\nsha256 = "{HASH}"\n', "contains the same token twice"),
    ],
)
def test_a_file_that_is_not_as_it_must_be_is_refused_with_what_is_wrong(path: Path, text: str, message: str):
    path.write_text(text)
    with pytest.raises(SettingError, match=message):
        follow(path)


def test_a_token_written_where_its_hash_belongs_is_refused_without_being_quoted(path: Path):
    token = make_token()
    path.write_text(f'[[token]]\nowner = "ann"\nsha256 = "{token}"')
    with pytest.raises(SettingError) as caught:
        follow(path)
    assert token not in str(caught.value)


def test_an_owner_that_the_file_could_not_hold_is_refused_on_the_command_line():
    done = CliRunner().invoke(main, ["token", 'a"b'])
    assert done.exit_code == 2
    assert "it must be 1 to 64 letters" in done.stderr
    assert done.stdout == ""


def test_a_file_of_tokens_may_begin_with_a_byte_order_mark(path: Path):
    token, entry = made("web-shop")
    path.write_bytes(b"\xef\xbb\xbf" + entry.encode())
    assert find(follow(path).value, token) == Owner(name="web-shop", quota=Quota())
