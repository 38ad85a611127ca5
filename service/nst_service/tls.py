"""TLS of the server. Certificates come from files, which are reread for new connections when they change."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from nst_service.reloaded import Reloaded, SettingError, read_file


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of the certificates. All files are PEM."""

    certificate: Path
    """The certificate of the server, followed by the certificates of the intermediate authorities."""
    key: Path
    """The unencrypted private key of the certificate."""
    client_ca: Path | None = None
    """The authorities that sign client certificates. None if clients need no certificate."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return the credentials of a port. New connections use the current contents of the files.

    An open connection keeps the certificate that it was opened with.

    Raises:
        SettingError: a file cannot be read, or the key does not belong to the certificate.
    """
    paths = [files.certificate, files.key, *([files.client_ca] if files.client_ca else [])]
    current = Reloaded(paths, lambda: _read(files))
    served = current.value

    def changed() -> grpc.ServerCertificateConfiguration | None:
        # A thread of gRPC calls this for every connection.
        nonlocal served
        if current.value is served:
            return None
        served = current.value
        return served.configuration()

    return grpc.dynamic_ssl_server_credentials(
        served.configuration(),
        changed,  # type: ignore[arg-type] # gRPC documents None for no change.
        require_client_authentication=files.client_ca is not None,
    )


@dataclass(frozen=True, slots=True)
class _Certificates:
    """The contents of the files."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.client_ca)


def _read(files: TlsFiles) -> _Certificates:
    certificate, key = read_file(files.certificate), read_file(files.key)
    client_ca = read_file(files.client_ca) if files.client_ca else None
    # gRPC accepts any bytes here and later fails every connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, OpenSSL would prompt for the one of an encrypted key on the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{files.certificate} and {files.key} are not a certificate and its unencrypted private key; "
            "both must be PEM"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii"))
        except (OSError, ValueError) as error:
            raise SettingError(f"{files.client_ca} contains no certificate of an authority; it must be PEM") from error
    return _Certificates(certificate, key, client_ca)
