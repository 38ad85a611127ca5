"""Who can reach an address, before anything listens on it."""

import ipaddress

from nst_service.reloaded import SettingError


class AddressError(SettingError):
    """The address cannot be listened on, or must not be."""


def check_exposure(address: str, *, encrypted: bool, insecure: bool) -> None:
    """Refuse to listen where others could read along, or write, unless that was asked for.

    Args:
        address: HOST:PORT, or a Unix socket.
        encrypted: whether connections are encrypted.
        insecure: whether the operator answers for it.

    Raises:
        AddressError: other machines could connect, without encryption.
    """
    if not (encrypted or insecure or is_loopback(address)):
        raise AddressError(
            f"other machines can connect to {address!r}, and nothing would be encrypted: set tls_certificate and "
            "tls_key (--tls-certificate, NST_TLS_CERTIFICATE ...), or insecure (--insecure, NST_INSECURE=1) where "
            "something else protects the port, such as a proxy with TLS or a container that publishes it on loopback"
        )


def is_loopback(address: str) -> bool:
    """Return whether only this machine can connect to an address; False where that is not certain."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
