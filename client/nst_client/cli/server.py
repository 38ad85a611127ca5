"""`nst-client info` and `health`: commands about the server."""

import click

from nst_client.cli.connection import Connection, answer_timeout
from nst_client.cli.exits import NOT_SERVING, reported
from nst_client.cli.streams import print_line
from nst_client.cli.tables import print_rows
from nst_client.info import Health, ServerInfo
from nst_client.json import to_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of a table.")
@answer_timeout
@click.pass_obj
def info(connection: Connection, as_json: bool, timeout: float) -> None:
    """Print the weights, devices, limits and defaults of the server."""
    with reported(connection.target), connection.client() as client:
        description = client.info(timeout=timeout)
    if as_json:
        print_line(to_json(description))
    else:
        print_rows(_rows(description))


@click.command()
@answer_timeout
@click.pass_context
def health(context: click.Context, timeout: float) -> None:
    """Print whether the server accepts jobs. The exit code is 0 only if it does."""
    connection: Connection = context.obj
    with reported(connection.target), connection.client() as client:
        status = client.health(timeout=timeout)
    print_line(status)
    context.exit(0 if status is Health.SERVING else NOT_SERVING)


def _rows(description: ServerInfo) -> dict[str, object]:
    rows: dict[str, object] = {
        "version": description.version,
        "weights": f"{description.weights.id} ({description.weights.sha256})",
        "devices": ", ".join(description.devices),
        "running jobs": description.running_jobs,
        "queued jobs": description.queued_jobs,
        "input": ", ".join(description.input_media_types),
        "layers": ", ".join(description.layers),
    }
    rows |= {f"limit: {name}": value for name, value in vars(description.limits).items()}
    rows |= {f"default: {name}": value for name, value in vars(description.default_options).items()}
    return rows | {f"default: {name}": value for name, value in vars(description.default_output).items()}
