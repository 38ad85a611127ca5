"""The page of the Python client, from its public names with their signatures and docstrings."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from docs.generator.markdown import block, code, docstring, plain, table
from docs.generator.sources import (
    Attribute,
    Class,
    Function,
    attributes,
    class_of,
    definitions,
    function_of,
    imported_from,
    module_source,
    public_names,
)

_PACKAGE = "nst_client"
_MORE = ("nst_client.json", "nst_client.exploration", "nst_client.media", "nst_client.video")
"""Modules that are imported by their own names."""


def body() -> str:
    """Return the page."""
    sections = [*_sections(_PACKAGE), *(_module(name) for name in _MORE)]
    contents = (
        f"- {section.title}: {', '.join(f'[{name}](#{name.lower()})' for _, name in section.names)}"
        for section in sections
    )
    return "\n".join([_module_text(_PACKAGE), *contents, "", *map(_shown, sections)])


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of the page."""

    title: str
    text: str
    names: tuple[tuple[str, str], ...]
    """The module that defines each name, and the name."""


def _sections(package: str) -> Iterator[_Section]:
    """Yield the public names of a package, module by module in the order of its imports."""
    public = set(public_names(package))
    modules: dict[str, list[str]] = {}
    for name, module in imported_from(package).items():
        if name in public:
            modules.setdefault(module, []).append(name)
    # The asynchronous client refers to the other one.
    for module, names in sorted(modules.items(), key=lambda item: item[0] == f"{package}.aio"):
        title, *_ = re.split(r"[:.]", ast.get_docstring(module_source(module)) or module)
        order = list(definitions(module))
        yield _Section(
            title=plain(title),
            text="",
            names=tuple((module, name) for name in sorted(names, key=order.index)),
        )


def _module(name: str) -> _Section:
    sources = imported_from(name)
    names = tuple((sources.get(public, name), public) for public in public_names(name))
    return _Section(title=code(name), text=_module_text(name), names=names)


def _shown(section: _Section) -> str:
    return "\n".join([f"## {section.title}\n", section.text, *(_entry(module, name) for module, name in section.names)])


def _module_text(name: str) -> str:
    return docstring(ast.get_docstring(module_source(name)) or "")


def _entry(module: str, name: str) -> str:
    match definitions(module)[name]:
        case ast.ClassDef() as definition:
            return _class(class_of(module, definition))
        case ast.FunctionDef() | ast.AsyncFunctionDef() as definition:
            return _function(function_of(definition), "###")
        case _:
            (constant,) = (found for found in attributes(module_source(module).body) if found.name == name)
            return f"### {name}\n\n{block(f'{name} = {constant.value}', 'python')}\n{plain(constant.text)}\n"


def _class(kind: Class) -> str:
    bases = f"({', '.join(kind.bases)})" if kind.bases else ""
    title = f"### {kind.name}\n\n{block(f'class {kind.name}{bases}', 'python')}\n{kind.text}\n"
    return title + _fields(kind.fields) + "".join(_function(method, "####") for method in kind.methods)


def _fields(fields: tuple[Attribute, ...]) -> str:
    if not fields:
        return ""
    if not any(field.type for field in fields):
        rows = ((code(field.name), code(field.value), plain(field.text)) for field in fields)
        return table(("name", "value", "meaning"), rows) + "\n"
    rows = ((code(field.name), code(_typed(field)), plain(field.text)) for field in fields)
    return table(("name", "type", "meaning"), rows) + "\n"


def _typed(field: Attribute) -> str:
    return f"{field.type} = {field.value}" if field.value else field.type or f"= {field.value}"


def _function(function: Function, level: str) -> str:
    return f"{level} {function.name}\n\n{block(function.signature, 'python')}\n{function.text}\n"
