import inspect
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from nst_service.engine.choices import Preset
from nst_service.engine.options import (
    DEFAULT_LEARNING_RATES,
    DEFAULT_PRESET,
    OutputOptions,
    Range,
    StyleOptions,
    TransferOptions,
)
from nst_service.rpc.status import STATUSES
from nst_service.store.errors import StoreError

from docs.generator.__main__ import ROOT, outdated, write
from docs.generator.contract import contract, prefix
from docs.generator.errors import conditions
from docs.generator.markdown import docstring, marked, table
from docs.generator.modules import first_comment
from docs.generator.pages import PAGES
from docs.generator.sources import documented

REQUESTS = (
    "StylizeRequest",
    "Style",
    "TransferOptions",
    "LayerWeight",
    "OutputOptions",
    "EstimateRequest",
    "WatchJobRequest",
    "GetJobRequest",
    "ListJobsRequest",
    "CancelJobRequest",
)
"""Messages that a client fills in."""

OPTIONS = {"Style": StyleOptions, "TransferOptions": TransferOptions, "OutputOptions": OutputOptions}
"""The options of the engine by their message."""


def ranges() -> Iterator[Any]:
    for message, kind in OPTIONS.items():
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if get_origin(hint) is Annotated:
                yield pytest.param(message, name, get_args(hint)[1], id=f"{message}.{name}")


def defaults() -> Iterator[Any]:
    for message, name in (("Style", "weight"), ("Style", "scale")):
        yield pytest.param(message, name, [getattr(StyleOptions(), name)], id=f"{message}.{name}")
    for name in OutputOptions.__slots__:
        yield pytest.param("OutputOptions", name, [getattr(OutputOptions(), name)], id=f"OutputOptions.{name}")
    presets = [TransferOptions.from_preset(preset) for preset in Preset]
    for name in TransferOptions.__slots__:
        values = [DEFAULT_PRESET] if name == "preset" else [getattr(options, name) for options in presets]
        yield pytest.param("TransferOptions", name, values, id=f"TransferOptions.{name}")


def field(message: str, name: str) -> Any:
    (found,) = (field for field in contract().messages[message].fields if field.name == name)
    return found


def plain_number(text: str) -> str:
    text = re.sub(r"2\^(\d+) - 1", lambda match: str(2 ** int(match[1]) - 1), text)
    return re.sub(r"\b\d+e\d+\b", lambda match: str(int(float(match[0]))), text)


def as_in_the_contract(value: Any, kind: str) -> str:
    match value:
        case bool():
            return str(value).lower()
        case StrEnum():
            return prefix(kind) + value.upper()
        case dict():
            *names, last = value
            return f"{', '.join(names)} and {last}" if names else last
        case _:
            return f"{value:g}"


def test_the_committed_pages_are_what_the_code_says():
    assert outdated(ROOT) == [], "make docs writes them anew"


def test_written_pages_are_not_outdated_until_one_changes(tmp_path: Path):
    assert outdated(tmp_path) == [page.path for page in PAGES]
    write(tmp_path)
    assert outdated(tmp_path) == []
    changed = tmp_path / PAGES[0].path
    changed.write_text(changed.read_text() + "more")
    assert outdated(tmp_path) == [PAGES[0].path]


@pytest.mark.parametrize("message", REQUESTS)
def test_every_field_of_a_request_is_required_or_has_a_default(message: str):
    for field in contract().messages[message].fields:
        assert field.need == "OPTIONAL" or field.need.startswith("REQUIRED"), field.name
        assert bool(field.default) == (field.need == "OPTIONAL"), field.name
        assert field.text.endswith("."), field.name


@pytest.mark.parametrize("message", OPTIONS)
def test_the_engine_has_every_option_of_the_contract(message: str):
    names = {field.name for field in contract().messages[message].fields}
    assert names - {"picture", "mask"} == set(OPTIONS[message].__slots__)


@pytest.mark.parametrize(("message", "name", "accepted"), list(ranges()))
def test_the_contract_names_the_range_that_the_engine_checks(message: str, name: str, accepted: Range):
    named = plain_number(field(message, name).range)
    if "Limits." in named:
        assert named.startswith(f"{accepted.low} to Limits.max_")
    elif name == "min_image_size":
        assert named.startswith("0, or from the smallest size")
    elif name == "bits":
        assert named == "8, or 16 in PNG and TIFF"
        assert (accepted.low, accepted.high) == (8, 16)
    else:
        assert named == str(accepted)


@pytest.mark.parametrize(("message", "name", "values"), list(defaults()))
def test_the_contract_names_the_default_of_the_engine(message: str, name: str, values: list[Any]):
    named = field(message, name).default
    if any(value != values[0] for value in values):
        assert named.endswith("from the preset")
    elif name == "learning_rate":
        assert named == "{lbfgs:g} for L-BFGS, {adam:g} for Adam".format(**DEFAULT_LEARNING_RATES)
    elif name == "scale_iterations":
        assert named == "iterations are divided equally"
    else:
        assert named == as_in_the_contract(values[0], field(message, name).type)


def test_the_page_of_errors_has_an_example_of_every_error_that_has_a_status_of_its_own():
    shown = {type(condition.error) for condition in conditions()}
    assert STATUSES.keys() - {StoreError} <= shown
    assert any(issubclass(kind, StoreError) for kind in shown)


def test_a_docstring_becomes_paragraphs_lists_and_code():
    text = inspect.cleandoc("""Return it.

    Use it like this:

        first = 1

        second = 2

    Args:
        one: the first,
            and more.
        two: the second.

    Returns:
        What it is.

    Raises:
        ValueError: it is <wrong>.
    """)
    assert docstring(text) == (
        "Return it.\n\nUse it like this:\n\n```python\nfirst = 1\n\nsecond = 2\n```\n\n"
        "*Args:*\n\n- `one`: the first, and more.\n- `two`: the second.\n\n"
        "*Returns:* What it is.\n\n*Raises:*\n\n- `ValueError`: it is \\<wrong>.\n"
    )


def test_the_first_sentence_of_a_comment_describes_a_cpp_file():
    source = "// Products of matrices, as by Goto (2008),\n// section 4.1. Part of it.\n//\n// More.\n#pragma once\n"
    assert first_comment(source) == "Products of matrices, as by Goto (2008), section 4.1."
    assert first_comment("int one;\n// two\n") == ""


def test_a_cell_of_a_table_may_hold_a_bar_and_a_line_break():
    assert table(("a", "b"), [("1|2", "3\n4")]) == "| a | b |\n|---|---|\n| 1\\|2 | 3<br>4 |\n"


def test_names_with_underscores_are_marked_once():
    assert marked("a tls_key and `max_queued`") == "a `tls_key` and `max_queued`"


def test_the_fields_of_a_private_base_belong_to_a_class():
    from nst_client.events import Started

    assert [field.name for field in documented(Started).fields] == ["sequence", "device", "queued_seconds"]
