"""The flags of every command for the server and the connection to it."""

import codecs
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from nst_client.client import StyleTransferClient
from nst_client.events import Disconnected
from nst_client.security import Tls
from nst_client.session import RECONNECT_SECONDS, RETRIES, TARGET


class _ExistingFile(click.Path):
    """The path of a file, in which `~` stands for the home directory also where no shell expands it."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path."""
        return super().convert(os.path.expanduser(value), parameter, context)  # noqa: PTH111 # It keeps an unknown ~user.


_file = _ExistingFile(exists=True, dir_okay=False, path_type=Path)

seconds = click.FloatRange(min=0, min_open=True)
"""The type of a flag for a time limit."""

answer_timeout = click.option(
    "--timeout",
    type=seconds,
    default=5.0,
    show_default=True,
    help="Seconds that the server gets to answer.",
)
"""The flag of commands that make one short call."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A server and the connection to it. The fields are those of `StyleTransferClient`."""

    target: str
    tls: Tls | None
    token: str | None = field(repr=False)
    reconnect_seconds: float

    def client(
        self, *, retries: int = RETRIES, on_disconnect: Callable[[Disconnected], object] | None = None
    ) -> StyleTransferClient:
        """Return a client of the server (see `StyleTransferClient`)."""
        return StyleTransferClient(
            self.target,
            tls=self.tls,
            token=self.token,
            retries=retries,
            reconnect_seconds=self.reconnect_seconds,
            on_disconnect=on_disconnect,
        )


def connection_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags, and pass their values to it as one `connection`."""

    @click.option(
        "--target",
        envvar="NST_TARGET",
        show_envvar=True,
        default=TARGET,
        show_default=True,
        help="Host and port of the server.",
    )
    @click.option(
        "--tls/--no-tls",
        "use_tls",
        envvar="NST_TLS",
        show_envvar=True,
        default=None,
        help="Encrypt the connection.  [default: only with --ca, --certificate or --server-name]",
    )
    @click.option(
        "--ca",
        metavar="FILE",
        type=_file,
        envvar="NST_CA",
        show_envvar=True,
        help="Authorities (PEM) that the server's certificate must come from.  [default: well-known authorities]",
    )
    @click.option(
        "--certificate",
        metavar="FILE",
        type=_file,
        envvar="NST_CLIENT_CERTIFICATE",
        show_envvar=True,
        help="Client certificate (PEM), for a server that requires one.",
    )
    @click.option(
        "--key",
        metavar="FILE",
        type=_file,
        envvar="NST_CLIENT_KEY",
        show_envvar=True,
        help="Private key (PEM) of the client certificate.",
    )
    @click.option(
        "--server-name",
        metavar="NAME",
        envvar="NST_SERVER_NAME",
        show_envvar=True,
        help="Name that the server's certificate must have.  [default: the host of --target]",
    )
    @click.option(
        "--token",
        metavar="TOKEN",
        envvar="NST_TOKEN",
        show_envvar=True,
        help="Bearer token to send. Other users of this machine can see flags: prefer the variable or --token-file.",
    )
    @click.option(
        "--token-file",
        metavar="FILE",
        type=_file,
        envvar="NST_TOKEN_FILE",
        show_envvar=True,
        help="File with the bearer token to send, if there is no --token.",
    )
    @click.option(
        "--reconnect-seconds",
        type=click.FloatRange(min=0),
        envvar="NST_RECONNECT_SECONDS",
        show_envvar=True,
        default=RECONNECT_SECONDS,
        show_default=True,
        help="Seconds to look for a server that was lost while it worked on a job; 0 gives up at once.",
    )
    @functools.wraps(command)
    def with_connection(
        *arguments: Any,
        target: str,
        use_tls: bool | None,
        ca: Path | None,
        certificate: Path | None,
        key: Path | None,
        server_name: str | None,
        token: str | None,
        token_file: Path | None,
        reconnect_seconds: float,
        **flags: Any,
    ) -> Any:
        given = ca or certificate or key or server_name
        if use_tls is False and given:
            raise click.UsageError("--no-tls excludes --ca, --certificate, --key and --server-name")
        tls = Tls(ca=ca, certificate=certificate, key=key, server_name=server_name) if use_tls or given else None
        if token is None and token_file is not None:
            token = _read_token(token_file)
        connection = Connection(target=target, tls=tls, token=token, reconnect_seconds=reconnect_seconds)
        return command(*arguments, connection=connection, **flags)

    return with_connection


def _read_token(path: Path) -> str:
    try:
        # Editors of Windows begin a file with a byte order mark.
        return path.read_bytes().removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it has characters that are not ASCII"
        raise click.UsageError(f"--token-file: {path} cannot be read: {reason}") from error
