"""`nst-server`: the command line of the server."""

import asyncio
import dataclasses
import logging
import os
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from nst_launcher.extras import missing_library
from nst_launcher.signals import leave_at_signal

from nst_service import tokens
from nst_service.config import ServerConfig, settings
from nst_service.environment import unknown_variables
from nst_service.reloaded import SettingError

_log = logging.getLogger(__name__)

ENVIRONMENT = "NST"
"""Prefix of the environment variables of the settings."""
_DEVICE_FAILED = 3
"""Exit code of a server with a failed device."""


class _ExistingFile(click.Path):
    """The path of a file, in which `~` stands for the home directory, as in every setting."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path."""
        return super().convert(os.path.expanduser(value), parameter, context)  # noqa: PTH111 # It keeps an unknown ~user.


def _load_file(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Use the values of a TOML file for the options that neither a flag nor the environment sets."""
    del parameter
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} cannot be read as TOML: {error}") from error
    known = {setting.name for setting in settings()}
    if unknown := sorted(values.keys() - known):
        raise click.BadParameter(f"{path}: unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}")
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
    """Add an option for each setting to a command."""
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
    invoke_without_command=True, context_settings={"auto_envvar_prefix": ENVIRONMENT, "max_content_width": 110}
)
@click.option(
    "--config",
    type=_ExistingFile(exists=True, dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=_load_file,
    help="TOML file with settings. A key is the name of a flag with underscores instead of dashes.",
    show_envvar=True,
)
@_options
@click.version_option(package_name="nst-stylize")
@click.pass_context
def main(context: click.Context, /, **values: Any) -> None:
    """Serve neural style transfer over gRPC.

    Each setting is a flag, an environment variable or a key of the --config file. A flag overrides the environment
    variable. The environment variable overrides the file.

    SIGTERM, SIGINT and SIGHUP drain the server. It accepts no new jobs, and running jobs get the grace period.
    Unfinished jobs with a request_id are then stored and resume at the next start. Other unfinished jobs end with their
    best picture. The server exits at most 15 s after the grace period, which is 45 s after the signal by default. A
    second signal ends the grace period at once. A signal that the parent process ignores stays ignored, such as SIGHUP
    below nohup.

    If a device fails, its jobs continue on the other devices. If no other device is left, the server exits with code 3
    and its jobs resume at the next start.
    """
    if context.invoked_subcommand is None:
        try:
            config = ServerConfig(**values)
        except SettingError as error:
            raise click.UsageError(str(error)) from error
        _serve(config)


def _serve(config: ServerConfig) -> None:
    try:
        from nst_service.telemetry.log_output import set_up_logging  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(missing_library(error)) from error
    set_up_logging(config.log_format, config.log_level, config.library_log_level)
    known = {f"{ENVIRONMENT}_{name.upper()}" for name in ("config", *(setting.name for setting in settings()))}
    for warning in unknown_variables(os.environ, known):
        _log.warning("%s", warning)
    # Set before anything slow: the first process of a container ignores a signal that has no handler.
    leave_at_signal(0)
    # A warning of Pillow about a picture of a client does not concern the operator.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Importing torch takes seconds, which --help and a usage error need not wait for.
    try:
        from nst_service.engine.errors import EngineError  # noqa: PLC0415
        from nst_service.server import serve  # noqa: PLC0415
        from nst_service.store.errors import StoreError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(missing_library(error)) from error

    try:
        ending = asyncio.run(serve(config))
    except StoreError as error:
        raise click.ClickException(error.described()) from error
    except (EngineError, SettingError) as error:
        raise click.ClickException(str(error)) from error
    code = _DEVICE_FAILED if ending.device_failed else 0
    # A normal exit would wait for the threads of devices that compute a step, and for those of a store that hangs.
    logging.shutdown()
    os._exit(code)


def _quota(name: str, explanation: str) -> Callable[..., Callable[..., None]]:
    return click.option(f"--{name}", type=click.IntRange(0), allow_from_autoenv=False, help=explanation)


@main.command()
@click.argument("owner")
@_quota("jobs", "Largest number of jobs of the owner that wait or run at once. 0 allows no jobs.")
@_quota("pixels", "Largest number of pixels (width times height) of the result of a job.")
@_quota("iterations", "Largest number of iterations of a job.")
def token(owner: str, **quotas: int | None) -> None:
    """Make a token for OWNER. Print its entry for the --tokens file to stdout, and the token to stderr.

    The entry contains the SHA-256 of the token only. The token is not stored and cannot be recovered.

    A job belongs to the OWNER. All tokens of one OWNER see the same jobs, which allows a new token to replace an old
    one. Without a quota, only the settings of the server limit the jobs of the OWNER.
    """
    made = tokens.make_token()
    try:
        entry = tokens.format_entry(made, owner, quotas)
    except SettingError as error:
        raise click.UsageError(str(error)) from error
    click.echo(entry)
    click.echo(f"token of {owner}, shown only once: {made}", err=True)
