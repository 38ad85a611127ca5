"""Printing of tables."""

import contextlib
from collections.abc import Iterable, Mapping

from rich.table import Table

from nst_client.cli.streams import ReliableConsole, writing_stdout

_PIPE_WIDTH = 160
"""The width of a line in characters if stdout is no terminal."""


def print_rows(rows: Mapping[str, object], *, to_stderr: bool = False) -> None:
    """Print each name and its value on one line, to stdout or to stderr."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), _text(value))
    _print(table, to_stderr=to_stderr)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table with a header."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _print(table)


def _print(table: Table, *, to_stderr: bool = False) -> None:
    console = ReliableConsole(highlight=False, stderr=to_stderr)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with contextlib.suppress(OSError) if to_stderr else writing_stdout():
        console.print(table)


def _text(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{layer}={weight:g}" if weight is not None else layer for layer, weight in value.items())
        case tuple():
            return ", ".join(map(str, value)) or "-"
        case None:
            return "-"
        case _:
            return str(value)
