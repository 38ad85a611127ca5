"""`nst-client stylize`: one picture, from file to file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nst_client.cli.connection import Connection
from nst_client.cli.exits import CANCELLED, reported, writing
from nst_client.cli.interrupts import cancelling, held_back
from nst_client.cli.reports import open_report
from nst_client.cli.request import build_request, picture_file, request_flags
from nst_client.events import Preview, StopReason
from nst_client.files import write_atomically
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
from nst_client.session import RETRIES

_PREVIEWS = 20
"""How many previews to ask for where --preview-every is not given."""
_PREVIEW_EVERY = 10
"""Iterations from preview to preview where --iterations is not given either."""


def _writable(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a file that could not be written, before any work is done."""
    if path is None:
        return None
    folder = path.resolve().parent
    if path.is_dir():
        raise click.BadParameter(f"{path} is a directory, expected is a file", context, parameter)
    if not folder.is_dir():
        raise click.BadParameter(f"the directory {folder} does not exist", context, parameter)
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return path


def _writable_folder(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a folder that is there and takes no files, or cannot be made."""
    if path is None or not path.exists():
        return _writable(context, parameter, path)
    if not path.is_dir():
        raise click.BadParameter(f"{path} is a file, expected is a directory", context, parameter)
    if not os.access(path, os.W_OK | os.X_OK):
        raise click.BadParameter(f"{path} cannot be written: permission denied", context, parameter)
    return path


def _writable_as(*suffixes: str) -> Callable[[click.Context, click.Parameter, Path | None], Path | None]:
    """Return what refuses a file that could not be written, or that has no suffix of these."""

    def check(context: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in suffixes:
            raise click.BadParameter(f"{path} is none of {', '.join(suffixes)}", context, parameter)
        return _writable(context, parameter, path)

    return check


@click.command()
@click.argument("content", type=picture_file)
@click.argument("styles", metavar="STYLE...", type=picture_file, nargs=-1)
@click.option("-o", "--out", metavar="FILE", type=picture_file, required=True, callback=_writable, help="The result.")
@request_flags
@click.option(
    "--preview", metavar="FILE", type=picture_file, callback=_writable, help="Keep the latest preview here (JPEG)."
)
@click.option("--preview-every", type=int, help="Iterations from preview to preview.")
@click.option("--preview-size", type=int, help="Longest edge of previews in pixels.")
@click.option(
    "--plot",
    metavar=f"FILE{'|'.join(PLOT_SUFFIXES)}",
    type=picture_file,
    callback=_writable_as(*PLOT_SUFFIXES),
    help="Draw the losses over the iterations.",
)
@click.option(
    "--frames",
    metavar="DIR",
    type=picture_file,
    callback=_writable_folder,
    help="Keep every preview and the final picture here, with a contact sheet of them (JPEG).",
)
@click.option(
    "--timelapse",
    metavar=f"FILE{'|'.join(TIMELAPSE_SUFFIXES)}",
    type=picture_file,
    callback=_writable_as(*TIMELAPSE_SUFFIXES),
    help="Make a film of the previews that ends on the final picture.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="For everything, the queue included.",
)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=RETRIES,
    show_default=True,
    help="How often to try again where no server takes the job.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each event, on stdout.")
@click.option("--quiet", is_flag=True, help="Nothing on stderr but errors.")
@click.pass_context
def stylize(
    context: click.Context,
    /,
    *,
    out: Path,
    preview: Path | None,
    preview_every: int | None,
    preview_size: int | None,
    plot: Path | None,
    frames: Path | None,
    timelapse: Path | None,
    timeout: float | None,
    retries: int,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Stylise CONTENT with one STYLE or a blend of several.

    What is not given comes from the preset; `nst-client info` lists the default one, with the limits.

    Ctrl-C ends the job and writes the best picture so far. --plot, --frames and --timelapse need the extra `media`, and
    are also written where a job ends without a picture.
    """
    if preview is None and frames is None and timelapse is None:
        for flag, value in (("--preview-every", preview_every), ("--preview-size", preview_size)):
            if value is not None:
                raise click.UsageError(f"{flag} needs --preview FILE, --frames DIR or --timelapse FILE")
    elif preview_every is None:
        preview_every = _preview_every(flags["iterations"])
    request = build_request(out=out, preview_every=preview_every, preview_size=preview_size, **flags)
    recorders = _recorders(plot, frames, timelapse)
    connection: Connection = context.obj
    with (
        reported(connection.target),
        held_back() as interrupts,
        connection.client(retries=retries) as client,
        client.stream(**request, timeout=timeout) as stylization,
        open_report(as_json=as_json, quiet=quiet) as report,
        cancelling(stylization, interrupts, report.note),
    ):
        result: Result | None = None
        try:
            for event in stylization:
                if isinstance(event, Preview) and preview is not None:
                    with writing(preview):
                        write_atomically(preview, event.data)
                for recorder in recorders:
                    with writing(recorder.path):
                        recorder.event(event)
                report.event(event)
            result = stylization.result
            with writing(out):
                result.save(out)
            report.saved(out, result)
        finally:
            for recorder in recorders:
                with writing(recorder.path):
                    if recorder.end(result):
                        report.note(f"wrote {recorder.path}")
    context.exit(CANCELLED if result.completed.stop_reason is StopReason.CANCELLED else 0)


def _preview_every(iterations: int | None) -> int:
    return _PREVIEW_EVERY if iterations is None else max(1, iterations // _PREVIEWS)


def _recorders(plot: Path | None, frames: Path | None, timelapse: Path | None) -> list[Recorder]:
    recorders = []
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
