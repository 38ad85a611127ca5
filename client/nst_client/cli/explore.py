"""`nst-client explore`: a sheet of one picture, stylised with several strengths and stroke sizes."""

import contextlib
import dataclasses
import shlex
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nst_client.cli.connection import Connection
from nst_client.cli.exits import CANCELLED, INCOMPLETE, reported, writing
from nst_client.cli.interrupts import at_interrupt, deferred_interrupts
from nst_client.cli.outputs import STDOUT, input_file, output_file, writable
from nst_client.cli.reports import CellPosition, Report
from nst_client.cli.request import build_request, request_flags, with_pictures
from nst_client.cli.run_flags import Run, run_flags
from nst_client.errors import NstError
from nst_client.exploration import CELL_ITERATIONS, CELL_SIZE, PARALLEL, Exploration, Grid, explore
from nst_client.media import EXTRA, MissingLibraryError, sheet_writer

if TYPE_CHECKING:
    from nst_client.media.sheet import Sheet, SheetWriter


def _values(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        message = f"{value!r} is not a list of numbers, accepted are values such as 0.3,0.5,0.7"
        raise click.BadParameter(message, context, parameter) from None


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


@click.command("explore")
@click.argument("content", type=input_file)
@click.argument("styles", metavar="STYLE...", type=input_file, nargs=-1)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    required=True,
    type=output_file,
    callback=writable,
    help="File of the sheet: PNG, JPEG, WebP or TIFF.",
)
@click.option(
    "--strengths",
    metavar="X,X...",
    callback=_values,
    help=f"Strength of each column, up to ten from 0 to 1.  [default: {_listed(Grid.strengths)}]",
)
@click.option(
    "--stroke-sizes",
    metavar="X,X...",
    callback=_values,
    help=f"Stroke size of each row, up to ten from 0 to 1.  [default: {_listed(Grid.stroke_sizes)}]",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1, max=100),
    default=PARALLEL,
    show_default=True,
    help="Number of cells that are requested at once.",
)
@request_flags
@run_flags
@click.pass_context
def explore_command(
    context: click.Context,
    /,
    *,
    out: Path,
    strengths: tuple[float, ...] | None,
    stroke_sizes: tuple[float, ...] | None,
    parallel: int,
    run: Run,
    **flags: Any,
) -> None:
    """Write a sheet of CONTENT in the style of STYLE: a column for each strength, a row for each stroke size.

    The cells are small, 192 px, and have few iterations, 60: --size and --iterations change this. `stylize --from
    SHEET:3,2` makes the cell in column 3 and row 2 large. The command needs the extra `media`: pip install
    'nst-stylize[media]'.

    Ctrl-C ends the running jobs and writes the finished cells. So does a job that fails.
    """
    quality = flags["quality"]
    for refused, message in (
        (flags["strength"] is not None, "--strength does not apply: --strengths has that of each column"),
        (flags["stroke_size"] is not None, "--stroke-size does not apply: --stroke-sizes has that of each row"),
        (flags["bits"] is not None, "--bits does not apply: a sheet has 8 bits per channel"),
        (quality is not None and not 1 <= quality <= 100, f"--quality is {quality}; accepted values are 1 to 100"),
        (out == STDOUT and run.display.as_json, "--json and '-' exclude each other: both write to stdout"),
    ):
        if refused:
            raise click.UsageError(message)
    if flags["image_size"] is None:
        flags["image_size"] = CELL_SIZE
    if flags["iterations"] is None and not flags["scale_iterations"]:
        flags["iterations"] = CELL_ITERATIONS
    request = build_request(out=out, **flags)
    output = request.pop("output")
    # The recipe of --from may have both.
    request["options"] = dataclasses.replace(request["options"], strength=None, stroke_size=None)
    try:
        writer = sheet_writer(out, output.format, quality=output.quality, metadata=output.metadata is not False)
    except MissingLibraryError as error:
        raise click.UsageError(f"explore needs {error.library}: pip install '{EXTRA}'") from error
    connection: Connection = context.obj
    with reported(connection.target):
        grid = Grid(
            Grid.strengths if strengths is None else strengths,
            Grid.stroke_sizes if stroke_sizes is None else stroke_sizes,
        )
        request = with_pictures(request)
    stopped = threading.Event()
    with (
        reported(connection.target),
        deferred_interrupts() as interrupts,
        run.display.open_failsafe() as report,
        connection.client(retries=run.retries, on_disconnect=report.outage) as client,
        explore(client, **request, grid=grid, parallel=parallel, timeout=run.timeout) as exploration,
    ):

        def stop() -> None:
            report.note("ending the running cells; press Ctrl-C again to leave at once")
            stopped.set()
            exploration.close()

        with at_interrupt(interrupts, stop):
            try:
                _follow(exploration, report)
            except NstError:
                # Finished cells are worth a sheet, but the error of the other one is worth more than one of the sheet.
                with contextlib.suppress(click.ClickException):
                    _write(writer, exploration, out, report)
                raise
            sheet = _write(writer, exploration, out, report)
        if sheet is not None and sheet.has_metadata:
            command = ["nst-client", "stylize", str(flags["content"]), *map(str, flags["styles"]), "-o", "FILE"]
            report.note(f"make a cell large: {shlex.join(command)} --from {shlex.quote(str(out))}:COLUMN,ROW")
    if stopped.is_set():
        context.exit(CANCELLED)
    context.exit(0 if report.is_complete else INCOMPLETE)


def _follow(exploration: Exploration, report: Report) -> None:
    """Show the events of all cells."""
    began, count = time.monotonic(), len(exploration.grid.cells)
    for cell, event in exploration:
        finished = len(exploration.results)
        spent = time.monotonic() - began
        report.cell(
            CellPosition(
                column=cell.column,
                row=cell.row,
                strength=cell.strength,
                stroke_size=cell.stroke_size,
                finished=finished,
                count=count,
                eta_seconds=spent / finished * (count - finished) if finished else None,
            )
        )
        report.event(event)


def _write(writer: "SheetWriter", exploration: Exploration, out: Path, report: Report) -> "Sheet | None":
    """Write the sheet of the finished cells and return it; None if there are none."""
    if not exploration.results:
        return None
    with writing(out):
        sheet = writer.write(exploration)
    report.saved(out, sheet)
    return sheet
