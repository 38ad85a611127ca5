"""The environment variables of the server: those that look like a setting and are none."""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator

_PREFIX = "NST_"
_OF_CLIENT = frozenset(
    f"{_PREFIX}{name}"
    for name in (
        *("TARGET", "TLS", "CA", "CLIENT_CERTIFICATE", "CLIENT_KEY", "SERVER_NAME", "TOKEN", "TOKEN_FILE"),
        "RECONNECT_SECONDS",
    )
)
"""The variables of `nst-client`, which the health check of a container uses."""
_OF_KUBERNETES = re.compile(
    r"NST_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""The variables that Kubernetes injects into every container for a Service whose name begins with nst."""


def unknown_variables(environment: Iterable[str], known: Collection[str]) -> Iterator[str]:
    """Yield a warning for each variable with the prefix of the server that sets nothing.

    Args:
        environment: the names of the variables.
        known: the names of the variables of the settings.
    """
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name in known or name in _OF_CLIENT or _OF_KUBERNETES.fullmatch(name):
            continue
        similar = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        yield f"the environment variable {name} is no setting and has no effect{hint}"
