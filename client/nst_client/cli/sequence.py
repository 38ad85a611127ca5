"""`nst-client sequence`: the frames of a video or of a folder of pictures, without flicker."""

import dataclasses
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from nst_client.cli.exits import CANCELLED
from nst_client.cli.request import build_request, picture_file, request_flags
from nst_client.cli.run_flags import Run, run_flags


def _destination(context: click.Context, parameter: click.Parameter, value: str) -> tuple[Path, bool]:
    """Return where frames go and whether that is a folder; refuse what could not be written before any work is done."""
    path = Path(value)
    is_folder = value.endswith(os.sep) or path.is_dir() or not path.suffix
    parent = path.resolve().parent
    if not is_folder and path.suffix.lower() != ".mp4":
        problem = f"{value} is neither a folder nor an .mp4"
    elif is_folder and path.exists() and not path.is_dir():
        problem = f"{value} is a file, expected is a folder"
    elif not parent.is_dir():
        problem = f"the directory {parent} does not exist"
    elif not os.access(path if path.exists() else parent, os.W_OK):
        problem = f"{value} cannot be written: permission denied"
    else:
        return path, is_folder
    raise click.BadParameter(problem, context, parameter)


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> Fraction | None:
    del context, parameter
    # Film and television have rates such as 30000/1001.
    return None if value is None else Fraction(value).limit_denominator(1001)


@click.command()
@click.argument("source", metavar="INPUT", type=picture_file)
@click.argument("styles", metavar="STYLE...", type=picture_file, nargs=-1)
@click.option(
    "-o",
    "--out",
    "destination",
    metavar="FOLDER|FILE.mp4",
    required=True,
    callback=_destination,
    help="The results: a PNG for each frame, or a video with the sound of INPUT.",
)
@request_flags
@click.option("--temporal-weight", type=float, help="Weight of the difference from the frame before; larger is calmer.")
@click.option(
    "--follow-iterations",
    type=click.IntRange(min=1),
    help="Optimiser steps of a frame that follows another.  [default: half of those of the first]",
)
@click.option(
    "--flow/--no-flow",
    "use_flow",
    default=True,
    help="Follow what moves; or start from the result before as it is, for pictures that show different things.",
)
@click.option("--start", type=click.IntRange(min=1), default=1, show_default=True, help="Number of the first frame.")
@click.option("--end", type=click.IntRange(min=1), help="Number of the last frame.")
@click.option(
    "--fps",
    "rate",
    type=click.FloatRange(min=0.01),
    callback=_rate,
    help="Frames a second of FILE.mp4; leaves out the sound.  [default: as INPUT, or 25]",
)
@click.option("--resume", is_flag=True, help="Go on after the frames that FOLDER has.")
@run_flags
@click.pass_context
def sequence(
    context: click.Context,
    /,
    *,
    source: Path,
    destination: tuple[Path, bool],
    follow_iterations: int | None,
    use_flow: bool,
    start: int,
    end: int | None,
    rate: Fraction | None,
    resume: bool,
    run: Run,
    **flags: Any,
) -> None:
    """Stylise the frames of INPUT, a video or a folder of pictures, so that they do not flicker.

    Each frame starts from the result of the one before, moved along by optical flow, and stays close to it. Needs the
    extra "video": pip install 'nst-stylize[video]'.

    Ctrl-C ends the running job and keeps the frames that are finished.
    """
    out, is_folder = destination
    for refused, message in (
        (not use_flow and flags["temporal_weight"] is not None, "--temporal-weight and --no-flow exclude each other"),
        (flags["picture_format"] is not None, "--format does not apply: frames are PNG"),
        (flags["quality"] is not None, "--quality does not apply: frames are PNG"),
        (flags["min_image_size"] is not None, "--min-size does not apply: frames are of one size"),
        (end is not None and end < start, f"--end {end} comes before --start {start}"),
        (is_folder and rate is not None, "--fps needs a video as --out"),
        (resume and not is_folder, "--resume needs a folder as --out"),
        (out.resolve() == source.resolve(), "INPUT and --out are the same"),
    ):
        if refused:
            raise click.UsageError(message)
    request = build_request(content=source, out=None, **flags | {"picture_format": "png"})
    del request["content"]
    # Nor does that of the picture that --from names.
    request["options"] = dataclasses.replace(request["options"], min_image_size=None)
    try:
        # The other commands work without the extra.
        from nst_client.cli.frames import run_sequence  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error
    finished = run_sequence(
        context.obj,
        source,
        out,
        is_folder=is_folder,
        start=start,
        end=end,
        rate=rate,
        resume=resume,
        open_report=run.display.open,
        retries=run.retries,
        use_flow=use_flow,
        follow_iterations=follow_iterations,
        timeout=run.timeout,
        **request,
    )
    context.exit(0 if finished else CANCELLED)
