"""Pieces of Markdown."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Sequence

_GOOGLE_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Attributes):\s*(.*)$")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table. Cells are Markdown; a line break in a cell becomes `<br>`."""
    lines = [_row(header), "|" + "---|" * len(header), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def code(text: object) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def block(text: str, language: str = "") -> str:
    """Return text as a block of code."""
    return f"```{language}\n{textwrap.dedent(text).strip(chr(10))}\n```\n"


def plain(text: str) -> str:
    """Return prose of a comment or docstring that Markdown shows as it stands."""
    return text.replace("<", "\\<")


def marked(text: str) -> str:
    """Return prose as `plain` does, with each name that has an underscore as inline code."""
    return re.sub(r"(?<![`\w])\w+(?:_\w+)+(?![`\w])", r"`\g<0>`", plain(text))


def docstring(text: str) -> str:
    """Return a docstring in Google style as Markdown: its sections become lists, its indented lines code."""
    parts: list[str] = []
    for is_code, paragraphs in itertools.groupby(re.split(r"\n\s*\n", text.strip()), lambda part: part[:4].isspace()):
        if is_code:
            parts.append(block("\n\n".join(paragraphs), "python"))
        else:
            parts.extend(map(_paragraph, paragraphs))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _paragraph(text: str) -> str:
    lines = text.split("\n")
    if match := _GOOGLE_SECTION.match(lines[0]):
        return _section(match[1], [*filter(None, [match[2]]), *lines[1:]])
    return plain(" ".join(line.strip() for line in lines))


def _section(title: str, lines: Sequence[str]) -> str:
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    entries: list[str] = []
    for line in lines:
        if entries and len(line) - len(line.lstrip()) > margin:
            entries[-1] += " " + line.strip()
        else:
            entries.append(line.strip())
    if title in ("Returns", "Yields"):
        return f"*{title}:* {plain(' '.join(entries))}"
    named = (entry.partition(":") for entry in entries)
    return "\n".join([f"*{title}:*", "", *(f"- `{name}`: {plain(text.strip())}" for name, _, text in named)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.strip().replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
