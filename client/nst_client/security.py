"""The credentials of a connection: TLS, tokens, and the rule that no token travels over a network unencrypted.

This module opens no connection. It only reads the PEM files that it is given.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from nst_client.errors import ConnectionOptionsError
from nst_client.session import CHANNEL_OPTIONS

Pem = bytes | str | os.PathLike[str]
"""The contents of a PEM file, or its path."""

_TOKEN = re.compile(r"[\x21-\x7e]+")
_PEM = b"-----BEGIN "
_SOCKETS = ("unix:", "unix-abstract:")
_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")
_LOOPBACK = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_URL = re.compile(r"(https?|grpcs?|h2c?)://", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\]]*\]|[^:/\[]*):(?P<port>[^:/]*)")
"""A host with a port. Targets of other forms, such as xds:///name and 2001:db8::1, are left to gRPC."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """The options of a TLS connection. By default, the server's certificate must come from a well-known authority."""

    ca: Pem | None = None
    """The authorities that the server's certificate must come from. Default: the authorities that gRPC comes with."""
    certificate: Pem | None = None
    """The client's own certificate with its chain, for servers that require one."""
    key: Pem | None = field(default=None, repr=False)
    """The private key of that certificate."""
    server_name: str | None = None
    """The name that the server's certificate must have. Default: the host of the target."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a channel.

        Raises:
            ConnectionOptionsError: a file cannot be read, or only one of certificate and key is given.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConnectionOptionsError("a client certificate needs its key, and a key needs its certificate")
        ca, key, certificate = map(_read, (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(ca, key, certificate)


@dataclass(frozen=True, kw_only=True)
class ChannelSettings:
    """The settings of a new channel."""

    credentials: grpc.ChannelCredentials | None
    """The credentials of the channel; None if it is neither encrypted nor carries a token."""
    options: tuple[tuple[str, int | str], ...]
    """The arguments of the channel, as gRPC takes them."""


def channel_settings(
    target: str, *, tls: Tls | None, token: str | None, credentials: grpc.ChannelCredentials | None
) -> ChannelSettings:
    """Decide how to open a channel.

    Args:
        target: the target of the channel.
        tls: how to encrypt the channel; None to leave it unencrypted.
        token: the bearer token to send; None for no token.
        credentials: credentials that replace `tls`.

    Raises:
        ConnectionOptionsError: a file cannot be read, the options contradict each other, or the token would travel
            over a network without encryption.
    """
    if tls is not None and credentials is not None:
        raise ConnectionOptionsError("tls and credentials exclude each other")
    options: tuple[tuple[str, int | str], ...] = CHANNEL_OPTIONS
    if is_loopback(target):
        # A proxy would look for the target on its own machine.
        options = (*options, ("grpc.enable_http_proxy", 0))
    if tls is not None:
        credentials = tls.credentials()
        if tls.server_name is not None:
            options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
    if token is None:
        check_target(target)
        return ChannelSettings(credentials=credentials, options=options)
    if not _TOKEN.fullmatch(token):
        # The message does not quote it: an invalid token may still be a secret.
        raise ConnectionOptionsError("the token has spaces or other characters that a token cannot have")
    if credentials is None:
        if not is_loopback(target):
            raise ConnectionOptionsError(
                f"the token would travel to {target} without encryption: use TLS, or a target on this machine"
            )
        # These credentials refuse a connection that leaves the machine, whatever the name of the target resolves to.
        kind = grpc.LocalConnectionType.UDS if target.startswith(_SOCKETS) else grpc.LocalConnectionType.LOCAL_TCP
        credentials = grpc.local_channel_credentials(kind)
    check_target(target)
    bearer = grpc.access_token_call_credentials(token)
    return ChannelSettings(credentials=grpc.composite_channel_credentials(credentials, bearer), options=options)


def check_target(target: str) -> None:
    """Check the form of a target. gRPC itself would count a port above 65535 from 0 again.

    Raises:
        ConnectionOptionsError: the target is not HOST:PORT, nor another form that gRPC knows.
    """
    if _URL.match(target):
        raise ConnectionOptionsError(f"the target {target!r} is a URL, expected is HOST:PORT; the option tls encrypts")
    if target.startswith(_SOCKETS):
        return
    for address in _without_scheme(target).split(","):
        if not address.strip():
            raise ConnectionOptionsError(f"the target {target!r} names no server, expected is HOST:PORT")
        found = _HOST_AND_PORT.fullmatch(address)
        if found is not None and not _is_port(found["port"]):
            raise ConnectionOptionsError(
                f"the target {target!r} has no valid port, expected is HOST:PORT with a port from 1 to 65535"
            )


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 65535


def _without_scheme(target: str) -> str:
    for scheme in _SCHEMES:
        if target.startswith(scheme):
            return target.removeprefix(scheme)
    return target


def is_loopback(target: str) -> bool:
    """Return whether the name of a target alone proves that it is on this machine."""
    if target.startswith(_SOCKETS):
        return True
    return _LOOPBACK.fullmatch(_without_scheme(target)) is not None


def _read(pem: Pem | None) -> bytes | None:
    if pem is None:
        return None
    name = "the given value" if isinstance(pem, bytes) else repr(os.fspath(pem))
    try:
        data = pem if isinstance(pem, bytes) else Path(pem).read_bytes()
    except OSError as error:
        raise ConnectionOptionsError(f"cannot read the file {name}: {error.strerror}") from error
    if _PEM not in data:
        # gRPC would accept it and then never connect.
        raise ConnectionOptionsError(f"{name} is neither a certificate nor a key in PEM")
    return data
