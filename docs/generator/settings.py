"""The page of the settings, from the fields of `ServerConfig`."""

import dataclasses
from typing import Any

from nst_service.cli import ENVIRONMENT
from nst_service.config import settings

from docs.generator.markdown import code, marked, table

_INTRODUCTION = """Each setting is a flag of `nst-server`, an environment variable and a key of the TOML file that
`--config` names. A flag overrides the environment variable. The environment variable overrides the file.

```toml
# nst-server --config nst.toml
address = "127.0.0.1:50051"
threads = 4
max_queued = 32
```
"""

_UNITS = ((2**30, "GiB"), (2**20, "MiB"))


def body() -> str:
    """Return the page."""
    rows = [
        (
            f"`--{name.replace('_', '-')}`\n`{ENVIRONMENT}_{name.upper()}`\n`{name}`",
            marked(setting.metadata["help"]),
            _default(setting),
            _range(setting),
        )
        for setting in settings()
        for name in [setting.name]
    ]
    return _INTRODUCTION + "\n" + table(("flag, variable, key", "explanation", "default", "range"), rows)


def _default(setting: dataclasses.Field[Any]) -> str:
    value: Any = setting.default
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "empty"
    return code(value) if isinstance(value, str) else _number(setting.name, value)


def _range(setting: dataclasses.Field[Any]) -> str:
    metadata = setting.metadata
    if choices := metadata.get("choices"):
        return ", ".join(code(choice) for choice in choices)
    if setting.type is bool:
        return "true, false"
    low, high = metadata.get("min"), metadata.get("max")
    if low is None:
        return ""
    shown = _number(setting.name, low)
    return f"{shown} or more" if high is None else f"{shown} to {_number(setting.name, high)}"


def _number(name: str, value: float) -> str:
    if name.endswith("_bytes"):
        for size, unit in _UNITS:
            if value >= size and value % size == 0:
                return f"{value} ({value // size} {unit})"
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else f"{value}"
