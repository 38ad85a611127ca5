"""The list of the generated pages."""

from collections.abc import Callable
from dataclasses import dataclass

from docs.generator import command_lines, errors, events, metrics, modules, options, python_api, settings


@dataclass(frozen=True, kw_only=True)
class Page:
    """One generated page."""

    path: str
    """Path relative to the root of the repository."""
    title: str
    source: str
    """What the page is generated from, for the reader who wants to change it."""
    body: Callable[[], str]
    """Returns the page in Markdown, without its title."""


PAGES = (
    Page(
        path="docs/reference/settings.md",
        title="Settings of the server",
        source="`service/nst_service/config.py`",
        body=settings.body,
    ),
    Page(
        path="docs/reference/metrics.md",
        title="Metrics of the server",
        source="`service/nst_service/telemetry/catalogue.py`",
        body=metrics.body,
    ),
    Page(
        path="docs/reference/options.md",
        title="Options of a request",
        source="`proto/nst/v1/style_transfer.proto` and `service/nst_service/engine/options.py`",
        body=options.body,
    ),
    Page(
        path="docs/reference/events.md",
        title="Events of a job",
        source="`proto/nst/v1/style_transfer.proto` and `client/nst_client/events.py`",
        body=events.body,
    ),
    Page(
        path="docs/reference/errors.md",
        title="Errors",
        source="`service/nst_service/rpc/status.py` and `client/nst_client/errors.py`",
        body=errors.body,
    ),
    Page(
        path="docs/reference/python.md",
        title="The Python client",
        source="`client/nst_client`",
        body=python_api.body,
    ),
    Page(
        path="docs/reference/cli.md",
        title="The command lines",
        source="`client/nst_client/cli` and `service/nst_service/cli.py`",
        body=command_lines.body,
    ),
    Page(
        path="docs/reference/modules.md",
        title="Modules",
        source="the docstring of each module",
        body=modules.body,
    ),
)


def rendered(page: Page) -> str:
    """Return the text of a page."""
    return f"# {page.title}\n\n> Generated from {page.source} by `make docs`.\n\n{page.body().strip()}\n"
