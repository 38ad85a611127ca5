"""How a client connects: TLS, tokens, and what may travel where. Pure but for reading the files it is told of."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from nst_client.errors import ConnectionOptionsError
from nst_client.session import CHANNEL_OPTIONS

Pem = bytes | str | os.PathLike[str]
"""What a PEM file holds, or its path."""

_TOKEN = re.compile(r"[\x21-\x7e]+")
_PEM = b"-----BEGIN "
_SOCKETS = ("unix:", "unix-abstract:")
_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How to connect with TLS. Without anything, the server's certificate must be one that the system trusts."""

    ca: Pem | None = None
    """Authorities that the server's certificate must come from; None for those that gRPC comes with."""
    certificate: Pem | None = None
    """The client's own certificate with its chain, for servers that want one."""
    key: Pem | None = field(default=None, repr=False)
    """The private key of that certificate."""
    server_name: str | None = None
    """The name that the server's certificate must have, where it is not the host of the target."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a channel.

        Raises:
            ConnectionOptionsError: a file cannot be read, or one of certificate and key is missing.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConnectionOptionsError("a client certificate needs its key, and a key its certificate")
        ca, key, certificate = map(_read, (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    """What a channel is opened with."""

    credentials: grpc.ChannelCredentials | None
    """None for a channel that is neither encrypted nor carries a token."""
    options: tuple[tuple[str, int | str], ...]


def channel_settings(
    target: str, *, tls: Tls | None, token: str | None, credentials: grpc.ChannelCredentials | None
) -> ChannelSettings:
    """Decide how to open a channel.

    Args:
        target: of the server.
        tls: how to encrypt; None for not at all.
        token: the bearer token to send.
        credentials: instead of `tls`.

    Raises:
        ConnectionOptionsError: a file cannot be read, the options contradict each other, or the token would travel
            over a network without encryption.
    """
    if tls is not None and credentials is not None:
        raise ConnectionOptionsError("tls and credentials exclude each other")
    options: tuple[tuple[str, int | str], ...] = CHANNEL_OPTIONS
    if tls is not None:
        credentials = tls.credentials()
        if tls.server_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
    if token is None:
        return ChannelSettings(credentials=credentials, options=options)
    if not _TOKEN.fullmatch(token):
        # Not quoted: it is a secret however wrong it is.
        raise ConnectionOptionsError("the token holds spaces or other characters that no token has")
    if credentials is None:
        if not is_loopback(target):
            raise ConnectionOptionsError(
                f"the token would travel to {target} without encryption: use TLS, or a target on this machine"
            )
        # These refuse a connection that leaves the machine, whatever the target's name resolves to.
        kind = grpc.LocalConnectionType.UDS if target.startswith(_SOCKETS) else grpc.LocalConnectionType.LOCAL_TCP
        credentials = grpc.local_channel_credentials(kind)
        options = (*options, ("grpc.enable_http_proxy", 0))
    bearer = grpc.access_token_call_credentials(token)
    return ChannelSettings(credentials=grpc.composite_channel_credentials(credentials, bearer), options=options)


def is_loopback(target: str) -> bool:
    """Return whether a target is on this machine by its name alone; False where that is not certain."""
    if target.startswith(_SOCKETS):
        return True
    for scheme in _SCHEMES:
        target = target.removeprefix(scheme)
    return _LOOPBACK.fullmatch(target) is not None


def _read(pem: Pem | None) -> bytes | None:
    if pem is None:
        return None
    name = "what was given" if isinstance(pem, bytes) else repr(os.fspath(pem))
    try:
        data = pem if isinstance(pem, bytes) else Path(pem).read_bytes()
    except OSError as error:
        raise ConnectionOptionsError(f"cannot read the file {name}: {error.strerror}") from error
    if _PEM not in data:
        # gRPC takes it, and then never connects.
        raise ConnectionOptionsError(f"{name} is neither a certificate nor a key in PEM")
    return data
