"""The names of databases and folders in messages for the operator, without their passwords."""

import sqlite3
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

_HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Location:
    """A database, a folder or a file as messages name it."""

    name: str
    """The name, which contains no secret."""
    secrets: tuple[str, ...] = ()
    """The texts that no message may contain."""

    @classmethod
    def of_url(cls, url: str) -> "Location":
        """Return the location of a URL or a path. User names, passwords and parameters are left out."""
        parts = urlsplit(url) if "://" in url else None
        if parts is None:
            return cls(url)
        credentials, _, host = parts.netloc.rpartition("@")
        values = (value for _, value in parse_qsl(parts.query))
        secrets = (credentials, parts.query, *credentials.split(":", 1)[1:], *values)
        each = {form for secret in secrets if secret for form in (secret, unquote(secret))}
        return cls(f"{parts.scheme}://{host}{parts.path}", tuple(sorted(each, key=len, reverse=True)))

    def detail(self, error: BaseException) -> str:
        """Return the name and the reason of an error, on one line and without the secrets."""
        text = f"{self.name}: {_reason(error)}"
        for secret in self.secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        # The text of the error would repeat the path.
        return str(error.strerror)
    text = " ".join(str(error).split())
    return text if isinstance(error, sqlite3.Error) else f"{type(error).__name__}: {text}".removesuffix(": ")
