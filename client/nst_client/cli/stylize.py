"""`nst-client stylize`: stylise one picture."""

from pathlib import Path
from typing import Any

import click

from nst_client.cli.connection import Connection
from nst_client.cli.exits import CANCELLED, INCOMPLETE, reported, writing_result
from nst_client.cli.interrupts import cancelling, deferred_interrupts
from nst_client.cli.outputs import (
    STDOUT,
    input_file,
    output_file,
    writable,
    writable_as,
    writable_folder,
)
from nst_client.cli.recordings import PreviewFile, Recordings
from nst_client.cli.reports import Report
from nst_client.cli.request import build_request, plain_file, request_flags, with_pictures
from nst_client.cli.run_flags import Run, run_flags
from nst_client.cli.streams import echo_error, writing_stdout
from nst_client.client import Stylization
from nst_client.events import Accepted, StopReason
from nst_client.json import event_to_json
from nst_client.media import (
    EXTRA,
    PLOT_SUFFIXES,
    TIMELAPSE_SUFFIXES,
    MissingLibraryError,
    Recorder,
    record_frames,
    record_losses,
    record_timelapse,
)
from nst_client.result import Result

_PREVIEWS = 20
"""The number of previews to ask for without --preview-every."""
_PREVIEW_EVERY = 10
"""Iterations from preview to preview without --preview-every and --iterations."""


@click.command()
@click.argument("content", type=input_file)
@click.argument("styles", metavar="STYLE...", type=input_file, nargs=-1)
@click.option(
    "-o",
    "--out",
    metavar="FILE",
    type=output_file,
    callback=writable,
    help="File of the result; required without --detach.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="In place of --out: print the id of the accepted job and leave it running for `watch` and `get`.",
)
@request_flags
@click.option(
    "--preview", metavar="FILE", type=output_file, callback=writable, help="File of the latest preview (JPEG)."
)
@click.option("--preview-every", type=int, help="Iterations from preview to preview.")
@click.option("--preview-size", type=int, help="Longest edge of previews in pixels.")
@click.option(
    "--plot",
    metavar=f"FILE{'|'.join(PLOT_SUFFIXES)}",
    type=plain_file,
    callback=writable_as(*PLOT_SUFFIXES),
    help="Plot of the losses over the iterations.",
)
@click.option(
    "--frames",
    metavar="DIR",
    type=plain_file,
    callback=writable_folder,
    help="Folder of every preview, the final picture and a contact sheet of them (JPEG).",
)
@click.option(
    "--timelapse",
    metavar=f"FILE{'|'.join(TIMELAPSE_SUFFIXES)}",
    type=plain_file,
    callback=writable_as(*TIMELAPSE_SUFFIXES),
    help="Film of the previews, which ends on the final picture.",
)
@click.option(
    "--request-id",
    metavar="ID",
    help="Name of the request. The same request with the same name follows its job again.  [default: a new name]",
)
@run_flags
@click.pass_context
def stylize(
    context: click.Context,
    /,
    *,
    out: Path | None,
    detach: bool,
    preview: Path | None,
    preview_every: int | None,
    preview_size: int | None,
    plot: Path | None,
    frames: Path | None,
    timelapse: Path | None,
    request_id: str | None,
    run: Run,
    **flags: Any,
) -> None:
    """Stylise CONTENT with one STYLE or a blend of several.

    Options you omit are taken from the preset. `nst-client info` lists the default preset and the limits.

    Ctrl-C ends the job and writes the best picture so far. --plot, --frames and --timelapse need the extra `media`, and
    are written even if the job ends without a picture.
    """
    made = {"--out": out, "--preview": preview, "--plot": plot, "--frames": frames, "--timelapse": timelapse}
    given = [flag for flag, path in made.items() if path is not None]
    if detach and given:
        raise click.UsageError(f"--detach and {given[0]} exclude each other")
    if preview is None and frames is None and timelapse is None:
        for flag, value in (("--preview-every", preview_every), ("--preview-size", preview_size)):
            if value is not None:
                raise click.UsageError(f"{flag} needs --preview FILE, --frames DIR or --timelapse FILE")
    elif preview_every is None:
        preview_every = _preview_every(flags["iterations"])
    request = build_request(out=out, preview_every=preview_every, preview_size=preview_size, **flags)
    request |= {"request_id": request_id, "timeout": run.timeout}
    connection: Connection = context.obj
    with reported(connection.target):
        # Ctrl-C can interrupt a pipe that is read, but not once interrupts are deferred.
        request = with_pictures(request)
    if detach:
        _detach(connection, request, retries=run.retries, as_json=run.display.as_json)
        return
    if out is None:
        raise click.UsageError("--out or --detach is required")
    if STDOUT in (out, preview) and run.display.as_json:
        raise click.UsageError("--json and '-' exclude each other: both write to stdout")
    recorders = _recorders(preview, plot, frames, timelapse)
    with (
        reported(connection.target),
        deferred_interrupts() as interrupts,
        run.display.open_failsafe() as report,
        connection.client(retries=run.retries, on_disconnect=report.outage) as client,
        client.stream(**request) as stylization,
        cancelling(stylization, interrupts, report.note),
    ):
        recordings = Recordings(recorders, report.note, report.warn)
        result = _follow(stylization, out, recordings, report, connection.target)
    if result.completed.stop_reason is StopReason.CANCELLED:
        context.exit(CANCELLED)
    context.exit(0 if recordings.are_complete and report.is_complete else INCOMPLETE)


def _follow(stylization: Stylization, out: Path, recordings: Recordings, report: Report, target: str) -> Result:
    """Write the recordings and the result of a job, however it ends, and return the result."""
    result: Result | None = None
    try:
        for event in stylization:
            recordings.event(event)
            report.event(event)
        result = stylization.result
        with writing_result(out, result.job_id, target):
            result.save(out)
        report.saved(out, result)
        return result
    finally:
        recordings.end(result)


def _detach(connection: Connection, request: dict[str, Any], *, retries: int, as_json: bool) -> None:
    """Start the job and print its id."""
    with (
        reported(connection.target),
        deferred_interrupts() as interrupts,
        connection.client(retries=retries) as client,
        client.stream(**request, keep_running=True) as stylization,
        cancelling(stylization, interrupts, echo_error),
    ):
        for event in stylization:
            if isinstance(event, Accepted):
                with writing_stdout(f"The job is {event.job_id}"):
                    click.echo(event_to_json(event) if as_json else event.job_id)
                break


def _preview_every(iterations: int | None) -> int:
    return _PREVIEW_EVERY if iterations is None else max(1, iterations // _PREVIEWS)


def _recorders(preview: Path | None, plot: Path | None, frames: Path | None, timelapse: Path | None) -> list[Recorder]:
    recorders: list[Recorder] = [] if preview is None else [PreviewFile(preview)]
    for flag, path, record in (
        ("--plot", plot, record_losses),
        ("--frames", frames, record_frames),
        ("--timelapse", timelapse, record_timelapse),
    ):
        if path is not None:
            try:
                recorders.append(record(path))
            except MissingLibraryError as error:
                raise click.UsageError(f"{flag} needs {error.library}: pip install '{EXTRA}'") from error
    return recorders
