"""Bearer tokens. A file contains the SHA-256 of each accepted token, its owner and its quotas."""

import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nst_service.jobs.quotas import Owner, Quota
from nst_service.reloaded import Reloaded, SettingError, read_file

_PREFIX = "nst_"
"""Prefix of every token. It lets people and secret scanners recognise a leaked token."""
_RANDOM_BYTES = 32
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_QUOTAS = tuple(field.name for field in fields(Quota))
_KEYS = ("owner", "sha256", *_QUOTAS)


@dataclass(frozen=True, slots=True)
class Entry:
    """An accepted token and its owner."""

    sha256: str
    """SHA-256 of the token as lower-case hexadecimal digits. 256 random bits need neither salt nor key stretching."""
    owner: Owner


def make_token() -> str:
    """Return a new token."""
    return _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def format_entry(token: str, owner: str, quotas: Mapping[str, int | None]) -> str:
    """Return the entry of a token for the file of tokens, as TOML.

    Raises:
        SettingError: the name of the owner is invalid.
    """
    values = {"owner": owner, "sha256": _sha256(token)} | {
        name: amount for name, amount in quotas.items() if amount is not None
    }
    _entry(values)
    lines = [f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"' for key, value in values.items()]
    return "\n".join(["[[token]]", *lines, ""])


def find(entries: Sequence[Entry], token: str) -> Owner | None:
    """Return the owner of a token, or None if no entry has it. The time taken does not depend on the token."""
    sha256 = _sha256(token)
    found = None
    for entry in entries:
        if hmac.compare_digest(entry.sha256, sha256):
            found = entry.owner
    return found


def follow(path: Path) -> Reloaded[tuple[Entry, ...]]:
    """Return the tokens of a file that may change while the server runs.

    Raises:
        SettingError: the file cannot be read, or an entry is invalid.
    """
    return Reloaded([path], lambda: _read(path))


def _read(path: Path) -> tuple[Entry, ...]:
    data = read_file(path)
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path} cannot be read as TOML: {error}") from error
    tables = document.pop("token", [])
    if document or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingError(f"{path} may contain only [[token]] entries")
    entries = []
    for number, table in enumerate(tables, 1):
        try:
            entries.append(_entry(table))
        except SettingError as error:
            raise SettingError(f"{path}, token {number}: {error}") from error
    if len({entry.sha256 for entry in entries}) < len(entries):
        raise SettingError(f"{path} contains the same token twice")
    return tuple(entries)


def _entry(table: Mapping[str, Any]) -> Entry:
    if unknown := sorted(table.keys() - set(_KEYS)):
        raise SettingError(f"unknown key {unknown[0]!r}; the keys are {', '.join(_KEYS)}")
    owner, sha256 = table.get("owner"), table.get("sha256")
    if not isinstance(owner, str) or not _OWNER.fullmatch(owner):
        raise SettingError(f"owner is {owner!r}; it must be 1 to 64 letters, digits or . _ @ -, such as web-shop")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        # The message does not quote the value, which might be the token itself.
        raise SettingError("sha256 is not the SHA-256 of a token; it must be 64 lower-case hexadecimal digits")
    quotas = {name: table[name] for name in _QUOTAS if name in table}
    for name, amount in quotas.items():
        # bool is a subclass of int.
        if type(amount) is not int or amount < 0:
            raise SettingError(f"{name} is {amount!r}; it must be an integer of 0 or more")
    return Entry(sha256, Owner(name=owner, quota=Quota(**quotas)))


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
