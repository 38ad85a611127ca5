"""The page of the command lines, from their commands."""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import click
import nst_client.cli
import nst_service.cli
from nst_client.cli.request import request_flags
from nst_service.config import settings

from docs.generator.markdown import block, code, docstring, plain, table

_REQUEST = "Flags of a request"
_REQUEST_FLAGS = f"It also takes the [flags of a request](#{_REQUEST.lower().replace(' ', '-')}).\n"
_SETTING_FLAGS = "Each [setting](settings.md) is a flag, too.\n"


def body() -> str:
    """Return the page."""
    request = request_flags(click.Command("request"))
    return "\n".join(
        [
            *_commands(nst_client.cli.commands, "nst-client", _names(request.params), _REQUEST_FLAGS),
            f"### {_REQUEST}\n\n[Options of a request](options.md) has the meaning and the range of each.\n",
            _table(request.params, click.Context(request)),
            *_commands(nst_service.cli.main, "nst-server", _names(settings()), _SETTING_FLAGS),
        ]
    )


def _commands(group: click.Group, name: str, known: frozenset[str], note: str) -> Iterator[str]:
    """Yield a command and its subcommands. A command with the `known` flags has the note in their place."""
    yield _command(group, name, "##", known, note)
    for sub, command in group.commands.items():
        yield _command(command, f"{name} {sub}", "###", known, note)


def _command(command: click.Command, name: str, level: str, known: frozenset[str], note: str) -> str:
    context = click.Context(command, info_name=name)
    has_known = known <= {parameter.name for parameter in command.params}
    parts = [
        f"{level} {name}\n",
        block(" ".join([name, *command.collect_usage_pieces(context)])),
        docstring(inspect.cleandoc(command.help or "")),
    ]
    if has_known:
        parts.append(note)
    own = [parameter for parameter in command.get_params(context) if not (has_known and parameter.name in known)]
    parts.append(_table(own, context))
    if command.epilog:
        title, _, lines = inspect.cleandoc(command.epilog).lstrip("\b\n").partition("\n")
        parts.append(f"{title}\n\n{block(lines)}")
    return "\n".join(parts)


def _table(parameters: Iterable[click.Parameter], context: click.Context) -> str:
    options = [parameter for parameter in parameters if isinstance(parameter, click.Option)]
    rows = [_option(option, context) for option in options if "--help" not in option.opts]
    return table(("flag", "explanation"), rows) if rows else ""


def _option(option: click.Option, context: click.Context) -> tuple[str, str]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    metavar = "" if option.is_flag else f" {code(option.make_metavar(context))}"
    text = plain(" ".join((option.help or "").split()))
    if option.show_default and option.default is not None and not option.is_flag:
        text += f" Default: {code(option.default)}."
    if option.envvar:
        text += f" Variable: {code(option.envvar)}."
    return names + metavar, text


def _names(named: Iterable[Any]) -> frozenset[str]:
    return frozenset(item.name for item in named)
