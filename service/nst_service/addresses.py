"""Checks which machines can reach an address before the server listens on it."""

import ipaddress

from nst_service.reloaded import SettingError


class AddressError(SettingError):
    """The server cannot listen on the address, or must not."""


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
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
