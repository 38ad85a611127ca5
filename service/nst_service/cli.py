"""`nst-server`: the command line of the server."""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nst_service import tokens
from nst_service.config import ServerConfig, settings
from nst_service.reloaded import SettingError

_ENVIRONMENT = "NST"
_DEVICE_FAILED = 3
"""Exit code."""


def _load_file(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the values of a TOML file the defaults of every option that neither a flag nor the environment sets."""
    del parameter
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} cannot be read as TOML: {error}") from error
    known = {setting.name for setting in settings()}
    if unknown := sorted(values.keys() - known):
        raise click.BadParameter(f"{path}: unknown setting {unknown[0]!r}, accepted are {', '.join(sorted(known))}")
    context.default_map = values


def _type_of(setting: dataclasses.Field[Any]) -> "click.ParamType[Any]":
    metadata = setting.metadata
    if choices := metadata.get("choices"):
        return click.Choice(choices)
    if setting.type is int:
        return click.IntRange(metadata.get("min"), metadata.get("max"))
    if setting.type is float:
        return click.FloatRange(metadata.get("min"), metadata.get("max"))
    return click.BOOL if setting.type is bool else click.STRING


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting."""
    for setting in reversed(settings()):
        command = click.option(
            f"--{setting.name.replace('_', '-')}",
            setting.name,
            type=_type_of(setting),
            is_flag=setting.type is bool,
            default=setting.default,
            help=setting.metadata["help"],
            show_default=True,
            show_envvar=True,
        )(command)
    return command


@click.group(
    invoke_without_command=True, context_settings={"auto_envvar_prefix": _ENVIRONMENT, "max_content_width": 110}
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_file,
    help="TOML file with settings by the names of these flags, underscores for dashes.",
    show_envvar=True,
)
@_options
@click.version_option(package_name="nst-stylize")
@click.pass_context
def main(context: click.Context, /, **values: Any) -> None:
    """Serve neural style transfer over gRPC.

    A flag goes before the environment, the environment before the file of --config, and that before the default.
    SIGTERM and SIGINT drain: no new jobs, and running jobs get the grace period. Then those with a request_id are kept
    to go on when the server is back, the others end with their best picture, and the server leaves, 15 s after the
    grace period at the latest. A second signal ends the grace period. A device that has failed ends the server with
    exit code 3: started again, it goes on with its jobs.
    """
    if context.invoked_subcommand is None:
        _serve(ServerConfig(**values))


def _serve(config: ServerConfig) -> None:
    logging.basicConfig(level=config.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Before anything slow: the first process of a container ignores a signal that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What is odd about a client's picture is no news for the operator.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # torch takes seconds to import: not for --help or a wrong flag.
    from nst_service.engine.errors import EngineError  # noqa: PLC0415
    from nst_service.server import serve  # noqa: PLC0415
    from nst_service.store.errors import StoreError  # noqa: PLC0415

    try:
        ending = asyncio.run(serve(config))
    except (EngineError, SettingError, StoreError) as error:
        raise click.ClickException(str(error)) from error
    code = _DEVICE_FAILED if ending.is_broken else 0
    if not ending.at_rest:
        # Python would wait for the thread of the device to end its step.
        os._exit(code)
    sys.exit(code)


def _quota(name: str, explanation: str) -> Callable[..., Callable[..., None]]:
    return click.option(f"--{name}", type=click.IntRange(0), allow_from_autoenv=False, help=explanation)


@main.command()
@click.argument("owner")
@_quota("jobs", "Jobs of the owner that may wait or run at once; 0 for none at all.")
@_quota("pixels", "Width times height of the result of a job.")
@_quota("iterations", "Iterations of a job.")
def token(owner: str, **quotas: int | None) -> None:
    """Make a token for OWNER: its entry for the file of --tokens on stdout, itself on stderr.

    Nothing keeps the token but whom you give it to; the entry holds its hash. Jobs belong to the OWNER: whoever has a
    token of the same OWNER sees them, so that a new token can replace an old one. What no quota limits is limited by
    the server's own settings.
    """
    made = tokens.make_token()
    try:
        entry = tokens.format_entry(made, owner, quotas)
    except SettingError as error:
        raise click.UsageError(str(error)) from error
    click.echo(entry)
    click.echo(f"token of {owner}, not to be seen again: {made}", err=True)
