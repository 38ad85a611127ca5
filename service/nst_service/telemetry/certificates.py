"""When the certificates of the server expire."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography import x509


def expiries(files: Mapping[str, Path]) -> Iterator[tuple[str, float]]:
    """Yield when the first certificate of each file expires, in seconds since the UNIX epoch.

    The files are read anew, because an operator may have replaced them. A file that cannot be read is left out.

    Args:
        files: files in PEM format by their names.
    """
    for name, path in files.items():
        try:
            certificates = x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError):
            continue
        yield name, min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)
