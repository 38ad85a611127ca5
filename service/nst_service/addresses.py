"""Checks of an address before the server listens on it: its form, who uses it already, and who can reach it."""

import ipaddress
import re
import socket
import stat
from pathlib import Path

from nst_service.reloaded import SettingError


class AddressError(SettingError):
    """The server cannot listen on the address, or must not."""


_SOCKET = "unix:"
_SOCKETS = (_SOCKET, "unix-abstract:")
_HOST_AND_PORT = re.compile(r"(ipv4:|ipv6:)?(?P<host>\[[^\]]+\]|[^:]+):(?P<port>\d{1,5})", re.ASCII)
_LARGEST_PORT = 65535
_PATIENCE_SECONDS = 1.0
"""Seconds that the server at the other end of a socket gets to accept a connection."""


def check_address(address: str) -> None:
    """Check the form of an address, and that no other server listens on its socket.

    gRPC itself would count a port above 65535 from 0 again, and take a socket away from the server that listens on it.

    Args:
        address: HOST:PORT or a Unix socket.

    Raises:
        AddressError: the server cannot listen on the address.
    """
    if address.startswith(_SOCKET):
        _check_socket(address, Path(address.removeprefix(_SOCKET).removeprefix("//")))
    elif not address.startswith(_SOCKETS):
        found = _HOST_AND_PORT.fullmatch(address)
        if found is None or int(found["port"]) > _LARGEST_PORT:
            raise AddressError(
                f"cannot listen on {address!r}: expected HOST:PORT with a port from 0 to {_LARGEST_PORT}, such as "
                "127.0.0.1:50051, or unix:PATH"
            )


def host_and_port(address: str) -> tuple[str, int]:
    """Return the host and the port of an address that is not a Unix socket.

    Raises:
        AddressError: the address has another form.
    """
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or int(found["port"]) > _LARGEST_PORT:
        raise AddressError(
            f"cannot listen on {address!r}: expected HOST:PORT with a port from 0 to {_LARGEST_PORT}, such as "
            "127.0.0.1:9464"
        )
    return found["host"].removeprefix("[").removesuffix("]"), int(found["port"])


def reason_of_failure(address: str) -> str:
    """Return why the server cannot listen on an address. gRPC itself does not say."""
    found = _HOST_AND_PORT.fullmatch(address)
    try:
        if found is None:
            with socket.socket(socket.AF_UNIX) as probe:
                path = address.removeprefix("unix-abstract:")
                probe.bind(address.removeprefix(_SOCKET).removeprefix("//") if path == address else f"\0{path}")
        else:
            host = found["host"].removeprefix("[").removesuffix("]")
            for family, kind, protocol, _, name in socket.getaddrinfo(
                host, int(found["port"]), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                with socket.socket(family, kind, protocol) as probe:
                    probe.bind(name)
    except OSError as error:
        return error.strerror or str(error)
    return "the address was in use a moment ago"


def _check_socket(address: str, path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise AddressError(f"cannot listen on {address!r}: {path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PATIENCE_SECONDS)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        # A socket that a killed server has left behind is replaced.
        if not path.name:
            raise AddressError(f"cannot listen on {address!r}: expected unix:PATH") from None
        return
    except OSError as error:
        # The server at the other end may just be too busy to answer.
        if not isinstance(error, BlockingIOError | TimeoutError):
            raise AddressError(f"cannot listen on {address!r}: {error.strerror or error}") from error
    raise AddressError(f"cannot listen on {address!r}: another server listens there")


def check_exposure(address: str, *, encrypted: bool, insecure: bool) -> None:
    """Refuse an unencrypted address that other machines can reach, unless the operator allows it.

    Args:
        address: HOST:PORT or a Unix socket.
        encrypted: whether connections are encrypted.
        insecure: whether the operator allows an unencrypted address.

    Raises:
        AddressError: other machines could connect without encryption.
    """
    if not (encrypted or insecure or is_loopback(address)):
        raise AddressError(
            f"other machines can connect to {address!r} without encryption; set tls_certificate and tls_key "
            "(--tls-certificate, NST_TLS_CERTIFICATE ...), or insecure (--insecure, NST_INSECURE=1) if something else "
            "protects the port, such as a proxy with TLS or a container that publishes the port on loopback only"
        )


def is_loopback(address: str) -> bool:
    """Return whether only this machine can connect to an address. Return False if that is uncertain."""
    if address.startswith(_SOCKETS):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
