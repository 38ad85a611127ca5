"""Prints the structure of a checkout: its import graphs, and its longest functions and classes.

    python -m bench.structure              # this checkout
    python -m bench.structure ../before    # another one

How it counts:

- An arrow is a module that imports another module of the same package, once however often it does. Imports within
  functions count. `from package import module` counts as an import of the module, not of the package.
- Files: every module is a node, and so is the `__init__` of a package.
- Rooms of a package: every file and every folder directly in it is a node; a folder stands for all modules in it. The
  `__init__` of the package itself does not count.
- A circle is a set of two or more nodes that all reach one another (a strongly connected component).
- Floors: the number of nodes in the longest chain of imports, where each circle counts as one node.
- Lines are those from `def` or `class` to the last line of the body, docstring and comments included. Methods and
  nested functions are functions, too. The methods of a class are those in its own body.
- The stubs that are generated from the contract count in the graph, but not among the longest.
"""

import argparse
import ast
import importlib.util
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grimp

from bench import ROOT
from bench.checkouts import Checkout, CheckoutError

_PACKAGES = ("nst", "nst_client", "nst_service")
_LONGEST = 10

Graph = Mapping[str, Collection[str]]
"""The nodes that each node imports. Every node is a key."""


@dataclass(frozen=True)
class Definition:
    """A function or a class."""

    name: str
    """Its qualified name, with the module."""
    lines: int
    methods: int | None = None
    """The number of methods of a class; None for a function."""


def main() -> int:
    """Print what the arguments ask for and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.structure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkout", type=Path, nargs="?", default=ROOT, help="folder of the checkout; default: this one"
    )
    checkout = Checkout("", parser.parse_args().checkout.resolve())
    try:
        imports = _imports(checkout)
    except CheckoutError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{'files of':<28}{'nodes':>7}{'arrows':>8}{'floors':>8}{'circles':>9}")
    for package in _PACKAGES:
        print(_row(package, _within(imports, package)))
    print(f"\n{'rooms of':<28}{'nodes':>7}{'arrows':>8}{'floors':>8}{'circles':>9}")
    for package in _packages(imports):
        print(_row(package, rooms(imports, package)))
    definitions = list(_definitions(checkout))
    for title, some in (
        ("functions", [each for each in definitions if each.methods is None]),
        ("classes", [each for each in definitions if each.methods is not None]),
    ):
        print(f"\nlongest {title}")
        for each in sorted(some, key=lambda each: (-each.lines, each.name))[:_LONGEST]:
            methods = "" if each.methods is None else f"{each.methods:>4} methods"
            print(f"{each.lines:>5} lines{methods}  {each.name}")
    return 0


def rooms(imports: Graph, package: str) -> Graph:
    """Return the import graph of what lies directly in a package, with each folder as one node."""
    depth = package.count(".") + 2

    def room(module: str) -> str:
        return ".".join(module.split(".")[:depth])

    inside = [module for module in imports if module.startswith(f"{package}.")]
    graph: dict[str, set[str]] = {room(module): set() for module in inside}
    for module in inside:
        graph[room(module)] |= {room(other) for other in imports[module] if other.startswith(f"{package}.")}
    return {node: others - {node} for node, others in graph.items()}


def circles(graph: Graph) -> list[frozenset[str]]:
    """Return the sets of nodes that reach one another, those of one node left out, the largest first."""
    found = {component for component in _components(graph).values() if len(component) > 1}
    return sorted(found, key=lambda circle: (-len(circle), min(circle)))


def floors(graph: Graph) -> int:
    """Return the number of nodes in the longest chain of imports, where each circle counts as one node."""
    components = _components(graph)

    @cache
    def height(component: frozenset[str]) -> int:
        below = {components[other] for node in component for other in graph[node]} - {component}
        return 1 + max(map(height, below), default=0)

    return max(map(height, components.values()), default=0)


def _components(graph: Graph) -> dict[str, frozenset[str]]:
    """Return the strongly connected component of each node: what it reaches and what reaches it."""
    reached = {node: _reached(graph, node) for node in graph}
    return {node: frozenset(other for other in reached[node] if node in reached[other]) for node in graph}


def _reached(graph: Graph, start: str) -> set[str]:
    found, pending = {start}, [start]
    while pending:
        new = set(graph[pending.pop()]) - found
        found |= new
        pending += new
    return found


def _row(name: str, graph: Graph) -> str:
    arrows = sum(map(len, graph.values()))
    found = circles(graph)
    named = f"   {'; '.join(', '.join(sorted(circle)) for circle in found)}" if found else ""
    return f"{name:<28}{len(graph):>7}{arrows:>8}{floors(graph):>8}{len(found):>9}{named}"


def _imports(checkout: Checkout) -> Graph:
    """Return the import graph of all packages of a checkout.

    Raises:
        CheckoutError: the packages are not found in it.
    """
    sys.path[:0] = map(str, checkout.packages)
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if not (spec and spec.origin and Path(spec.origin).is_relative_to(checkout.root)):
            raise CheckoutError(f"{checkout.root} has no package {package}")
    graph = grimp.build_graph(*_PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}


def _within(imports: Graph, package: str) -> Graph:
    """Return the part of a graph whose modules belong to a package."""
    inside = {module for module in imports if f"{module}.".startswith(f"{package}.")}
    return {module: inside.intersection(imports[module]) for module in inside}


def _packages(imports: Graph) -> Sequence[str]:
    """Return the packages with more than one room, each before those within it."""
    parents = {module.rpartition(".")[0] for module in imports} - {""}
    return sorted(package for package in parents if len(rooms(imports, package)) > 1)


def _definitions(checkout: Checkout) -> Iterator[Definition]:
    for folder in checkout.packages:
        for path in sorted(folder.rglob("*.py")):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                module = ".".join(path.relative_to(folder).with_suffix("").parts)
                yield from definitions(module, ast.parse(path.read_text()))


def definitions(name: str, parent: ast.AST) -> Iterator[Definition]:
    """Yield all functions and classes within a node of a syntax tree, whose name is given."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own, lines = f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield Definition(own, lines, len(methods) if isinstance(node, ast.ClassDef) else None)
            yield from definitions(own, node)
        else:
            yield from definitions(name, node)


if __name__ == "__main__":
    sys.exit(main())
