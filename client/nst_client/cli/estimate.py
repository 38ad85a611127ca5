"""`nst-client estimate`: the size, time and memory that a stylisation would take."""

from pathlib import Path
from typing import Any

import click

from nst_client.cli.connection import Connection, seconds
from nst_client.cli.exits import reported
from nst_client.cli.outputs import input_file
from nst_client.cli.request import build_request, request_flags
from nst_client.cli.streams import print_line
from nst_client.events import Estimate
from nst_client.json import to_json


@click.command()
@click.argument("content", type=input_file)
@click.argument("styles", metavar="STYLE...", type=input_file, nargs=-1)
@request_flags
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of lines.")
@click.option(
    "--timeout",
    type=seconds,
    default=60.0,
    show_default=True,
    help="Seconds that the server gets to answer.",
)
@click.pass_obj
def estimate(connection: Connection, /, *, as_json: bool, timeout: float, **flags: Any) -> None:
    """Print the size, time and memory that `stylize` would take with the same arguments."""
    out: Path | None = None
    request = build_request(out=out, **flags)
    with reported(connection.target), connection.client() as client:
        found = client.estimate(**request, timeout=timeout)
    print_line(to_json(found) if as_json else _lines(found))


def _lines(found: Estimate) -> str:
    cost = found.cost
    tiles = f"in tiles of {cost.tile_size} px" if cost.tile_size else "as a whole"
    reduced = f", reduced from {cost.reduced_from}" if cost.reduced_from else ""
    return (
        f"size    {found.width}x{found.height} px{reduced}, {tiles}\n"
        f"time    {cost.seconds:.0f} s for {found.options.iterations} iterations, "
        f"{cost.queue_seconds:.0f} s in the queue\n"
        f"memory  {cost.peak_memory_bytes / 2**20:.0f} MiB"
    )
