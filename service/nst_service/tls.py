"""TLS of the server: certificates from files, read again for new connections when they have changed."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from nst_service.reloaded import Reloaded, SettingError, read_file


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificates are, all of them PEM."""

    certificate: Path
    """Of the server, followed by those of the authorities between it and the root."""
    key: Path
    """Its private key, not encrypted."""
    client_ca: Path | None = None
    """Of the authorities whose clients may connect; None for clients without a certificate."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return the credentials of a port that follows the files.

    Connections keep the certificate that they were opened with.

    Raises:
        SettingError: a file cannot be read, or certificate and key do not belong together.
    """
    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]
    current = Reloaded(paths, lambda: _read(files))
    served = current.value

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # Called by a thread of gRPC for every connection.
        nonlocal served
        if current.value is served:
            return None
        served = current.value
        return served.configuration()

    return grpc.dynamic_ssl_server_credentials(
        served.configuration(),
        changed,  # type: ignore[arg-type] # None is what gRPC documents for no change.
        require_client_authentication=files.client_ca is not None,
    )


@dataclass(frozen=True, slots=True)
class _Certificates:
    """What the files hold."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def _read(files: TlsFiles) -> _Certificates:
    certificate, key = read_file(files.certificate), read_file(files.key)
    client_ca = read_file(files.client_ca) if files.client_ca else None
    # gRPC takes anything, and then fails every connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password, so that an encrypted key is refused rather than asked for on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{files.certificate} and {files.key} are not a certificate and its unencrypted private key, "
            "expected is PEM of both"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (OSError, ValueError) as error:
            raise SettingError(f"{files.client_ca} holds no certificate of an authority, expected is PEM") from error
    return _Certificates(certificate, key, client_ca)
