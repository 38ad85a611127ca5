"""The page of the modules: one line for each, from its docstring, or from the first comment of a C++ file."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from docs.generator.markdown import code, plain, table

_ROOT = Path(__file__).parents[2]
_CPP_SUFFIXES = (".cpp", ".h", ".inc")
_FOLDERS = ("client/nst_client", "client/nst_launcher", "service/nst_service", "bench", "examples", "docs/generator")


def body() -> str:
    """Return the page."""
    return "\n".join(_package(package) for folder in _FOLDERS for package in _packages(_ROOT / folder))


def _packages(folder: Path) -> Iterator[Path]:
    """Yield a folder and the folders below it that have Python modules."""
    if any(folder.glob("*.py")):
        yield folder
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"):
        yield from _packages(below)


def _package(folder: Path) -> str:
    own = folder / "__init__.py"
    text = f"{plain(_first_line(own))}\n\n" if own.is_file() else ""
    rows = [(code(path.name), plain(_first_line(path))) for path in sorted(folder.glob("*.py")) if path != own]
    rows += [
        (code(path.name), plain(first_comment(path.read_text(encoding="utf-8"))))
        for path in sorted(folder.iterdir())
        if path.suffix in _CPP_SUFFIXES
    ]
    return f"## {folder.relative_to(_ROOT)}\n\n{text}{table(('module', 'purpose'), rows) if rows else ''}"


def first_comment(source: str) -> str:
    """Return the first sentence of the comment that C++ code begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("// "), source.splitlines())
    text = " ".join(line.removeprefix("// ") for line in lines)
    return re.split(r"(?<=\.)\s", text)[0]


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())
