"""The URL of a PostgreSQL database, and the options that it may have."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import parse_qs

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_FORM = "postgresql://USER:PASSWORD@HOST:PORT/NAME"

_OPTIONS = re.compile(r"[^:]*://(?:[^:/]*(?::[^@]*)?@)?[^?]*\?(.*)", re.DOTALL)
"""The options of a URL as SQLAlchemy finds them, which leaves out those without a value."""

_WHOLE_NUMBERS = frozenset(
    {
        *("connect_timeout", "port", "tcp_user_timeout"),
        *("keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval"),
    }
)
"""The options whose value is a whole number."""

_CHOICES: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
        "channel_binding": ("disable", "prefer", "require"),
        "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
        "load_balance_hosts": ("disable", "random"),
    }
)
"""The accepted values of the options that have few."""

_TEXTS = frozenset(
    {
        *("user", "password", "dbname", "host", "hostaddr", "passfile", "service", "options", "application_name"),
        *("fallback_application_name", "require_auth", "requirepeer", "gssencmode", "gsslib", "krbsrvname"),
        *("sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslcrldir", "sslcertmode", "sslsni"),
        *("sslcompression", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)
"""The options that libpq checks itself."""

_REPEATABLE = frozenset({"host", "port"})
"""The options that may be given several times, once for each of several hosts."""

_ACCEPTED = _TEXTS | _WHOLE_NUMBERS | _CHOICES.keys()
"""All accepted options. Of the options of libpq only those are missing that would change what the store relies on, such
as `client_encoding` and `replication`."""


def parse_database_url(text: str) -> URL:
    """Return the URL of a PostgreSQL database.

    The options after `?` are those of libpq, such as `sslmode`. Everything else is refused by its name, since it would
    change how the store uses its connections. No message quotes the URL or a value, which may be a secret.

    Raises:
        ValueError: the URL is not one of PostgreSQL, or has an option that is not accepted.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        raise ValueError(f"the database must be given as {_FORM}")
    options = _OPTIONS.match(text)
    for name, values in parse_qs(options[1] if options else "", keep_blank_values=True).items():
        if name not in _ACCEPTED:
            accepted = ", ".join(sorted(_ACCEPTED))
            raise ValueError(
                f"the database URL has the option {name!r}, which is not accepted; accepted are {accepted}"
            )
        if len(values) > 1 and name not in _REPEATABLE:
            raise ValueError(f"the database URL has the option {name!r} {len(values)} times; once is accepted")
        for value in values:
            _check_value(name, value)
    return url


def _check_value(name: str, value: str) -> None:
    if not value:
        raise ValueError(f"the option {name!r} of the database URL has no value")
    if name in _WHOLE_NUMBERS and not all(number.isdecimal() for number in value.split(",")):
        raise ValueError(f"the option {name!r} of the database URL must be a whole number")
    if (choices := _CHOICES.get(name)) and value not in choices:
        raise ValueError(f"the option {name!r} of the database URL must be one of {', '.join(choices)}")
