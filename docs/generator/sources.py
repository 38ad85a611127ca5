"""Public names of Python modules with their signatures and docstrings, read from the source.

Attributes are documented by a string below each, which only the source has.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from docs.generator.markdown import docstring

_LINE = 100
"""Longest signature on one line."""

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A documented attribute, property, enum value or constant."""

    name: str
    type: str
    """The annotation; empty if there is none."""
    value: str
    """The source of the default or the value; empty if there is none."""
    text: str
    """The docstring on one line."""


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function or a method."""

    name: str
    signature: str
    text: str
    """The docstring as Markdown."""


@dataclass(frozen=True, kw_only=True)
class Class:
    """A class with its public members, those of private bases included."""

    name: str
    bases: tuple[str, ...]
    """Names of the public bases."""
    text: str
    """The docstring as Markdown."""
    fields: tuple[Attribute, ...]
    methods: tuple[Function, ...]


def documented(kind: type) -> Class:
    """Return a class that a module defines."""
    definition = definitions(kind.__module__)[kind.__name__]
    assert isinstance(definition, ast.ClassDef)
    return class_of(kind.__module__, definition)


@functools.cache
def module_source(name: str) -> ast.Module:
    """Return the parsed source of a module, which need not be imported."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


@functools.cache
def definitions(name: str) -> dict[str, ast.stmt]:
    """Return the statements of a module that define a class, a function or a constant, by its name."""
    found: dict[str, ast.stmt] = {}
    for statement in module_source(name).body:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found[statement.name] = statement
            case ast.Assign(targets=[ast.Name(id=target)]) | ast.AnnAssign(target=ast.Name(id=target)):
                found[target] = statement
    return found


def imported_from(name: str) -> dict[str, str]:
    """Return the module that each imported name of a module comes from."""
    return {
        alias.asname or alias.name: statement.module
        for statement in module_source(name).body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }


def public_names(name: str) -> list[str]:
    """Return `__all__` of a module or, without one, its documented public definitions."""
    found = definitions(name)
    if "__all__" in found:
        statement = found["__all__"]
        assert isinstance(statement, ast.Assign)
        names: list[str] = ast.literal_eval(statement.value)
        return names
    texts = {attribute.name for attribute in attributes(module_source(name).body)}
    return [
        target
        for target, statement in found.items()
        if not target.startswith("_") and (isinstance(statement, _Definition) or target in texts)
    ]


def class_of(module: str, definition: ast.ClassDef) -> Class:
    """Return what the source says about a class."""
    fields = list(attributes(definition.body))
    methods: list[Function] = []
    bases: list[str] = []
    for base in map(ast.unparse, definition.bases):
        inherited = definitions(module).get(base)
        if base.startswith("_") and isinstance(inherited, ast.ClassDef):
            parent = class_of(module, inherited)
            fields, methods = [*parent.fields, *fields], [*parent.methods, *methods]
        else:
            bases.append(base)
    for statement in definition.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if statement.name == "__init__":
            fields.extend(attributes(statement.body))
        decorators = {_source(decorator) for decorator in statement.decorator_list}
        if decorators & {"property", "functools.cached_property"}:
            if not statement.name.startswith("_"):
                fields.append(_property(statement))
        elif _is_public(statement):
            methods.append(function_of(statement))
    return Class(
        name=definition.name,
        bases=tuple(bases),
        text=_markdown(definition),
        fields=tuple(fields),
        methods=tuple(methods),
    )


def function_of(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    """Return what the source says about a function."""
    return Function(name=definition.name, signature=_signature(definition), text=_markdown(definition))


def attributes(statements: Sequence[ast.stmt]) -> Iterator[Attribute]:
    """Yield the public attributes that are followed by a string."""
    for statement, following in zip(statements, [*statements[1:], None], strict=True):
        if not (
            isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            continue
        match statement:
            case ast.AnnAssign(target=target, annotation=annotation, value=value):
                kind = _source(annotation)
            case ast.Assign(targets=[target], value=value):
                kind = ""
            case _:
                continue
        name = target.attr if isinstance(target, ast.Attribute) else _source(target)
        if not name.startswith("_"):
            text = " ".join(following.value.value.split())
            yield Attribute(name=name, type=kind, value=_default(value), text=text)


def _default(value: ast.expr | None) -> str:
    """Return the source of a default. A dataclass field without one has none."""
    if isinstance(value, ast.Call) and _source(value.func) == "field":
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        value = given.get("default") or given.get("default_factory")
    return "" if value is None else _source(value)


def _property(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Attribute:
    text = " ".join((ast.get_docstring(definition) or "").split())
    kind = _source(definition.returns) if definition.returns else ""
    return Attribute(name=definition.name, type=kind, value="", text=text)


def _is_public(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    if definition.name == "__init__":
        text = ast.get_docstring(definition) or ""
        return bool(text) and "Programs get it from" not in text
    return not definition.name.startswith("_")


def _signature(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = [argument for argument in _arguments(definition.args) if argument not in ("self", "cls")]
    prefix = "async def" if isinstance(definition, ast.AsyncFunctionDef) else "def"
    returns = f" -> {_source(definition.returns)}" if definition.returns else ""
    line = f"{prefix} {definition.name}({', '.join(arguments)}){returns}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"{prefix} {definition.name}(", *(f"    {argument}," for argument in arguments), f"){returns}"])


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    for number, (argument, default) in enumerate(zip(positional, [*missing, *arguments.defaults], strict=True), 1):
        yield _argument(argument, default)
        if number == len(arguments.posonlyargs):
            yield "/"
    if arguments.vararg:
        yield f"*{_argument(arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwarg:
        yield f"**{_argument(arguments.kwarg, None)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    if argument.annotation:
        text += f": {_source(argument.annotation)}"
    if default is not None:
        text += f" = {_source(default)}" if argument.annotation else f"={_source(default)}"
    return text


def _markdown(definition: _Definition) -> str:
    text = ast.get_docstring(definition)
    return docstring(text) if text else ""


def _source(node: ast.AST) -> str:
    """Return the source of a node, with the quotes of this project."""
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')
