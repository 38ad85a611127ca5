"""`nst-client info`, `cancel` and `health`: about a server and its jobs."""

import click
from rich.console import Console
from rich.table import Table

from nst_client.cli.connection import Connection
from nst_client.cli.exits import NOT_SERVING, reported
from nst_client.cli.json_lines import to_json
from nst_client.info import Health, ServerInfo

_timeout = click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, show_default=True, help="Seconds to wait."
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
@_timeout
@click.pass_obj
def info(connection: Connection, as_json: bool, timeout: float) -> None:
    """Describe the server: weights, devices, limits and every default."""
    with reported(connection.target), connection.client() as client:
        description = client.info(timeout=timeout)
    if as_json:
        click.echo(to_json(description))
    else:
        Console().print(_table(description))


@click.command()
@click.argument("job_id")
@_timeout
@click.pass_obj
def cancel(connection: Connection, job_id: str, timeout: float) -> None:
    """Cancel a job; whoever waits for it gets the best picture so far."""
    with reported(connection.target), connection.client() as client:
        state = client.cancel(job_id, timeout=timeout)
    click.echo(f"the job was {state}")


@click.command()
@_timeout
@click.pass_context
def health(context: click.Context, timeout: float) -> None:
    """Say whether the server takes jobs; exits with 0 only if it does."""
    connection: Connection = context.obj
    with reported(connection.target), connection.client() as client:
        status = client.health(timeout=timeout)
    click.echo(status)
    context.exit(0 if status is Health.SERVING else NOT_SERVING)


def _table(description: ServerInfo) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    defaults = description.default_options
    output = description.default_output
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
    rows |= {f"default: {name}": _plain(value) for name, value in vars(defaults).items()}
    rows |= {f"default: {name}": _plain(value) for name, value in vars(output).items()}
    for name, value in rows.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{layer}={weight:g}" if weight is not None else layer for layer, weight in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else value
