"""`nst-client sequence`: stylise a video or a folder of frames without flicker."""

import dataclasses
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from nst_client.cli.outputs import input_file, is_folder, writable, writable_folder
from nst_client.cli.request import build_request, plain_file, request_flags
from nst_client.cli.run_flags import Run, run_flags


def _destination(context: click.Context, parameter: click.Parameter, value: str) -> tuple[Path, bool]:
    """Return the path of the results and whether it is a folder.

    Raises:
        click.BadParameter: it could not be written.
    """
    path = Path(value)
    if value == "-":
        raise click.BadParameter("'-' is not possible: frames are written to a folder or an .mp4", context, parameter)
    if value.endswith(os.sep) or is_folder(path) or not path.suffix:
        writable_folder(context, parameter, path)
        return path, True
    if path.suffix.lower() != ".mp4":
        raise click.BadParameter(f"{value} is neither a folder nor an .mp4", context, parameter)
    writable(context, parameter, path)
    return path, False


def _rate(context: click.Context, parameter: click.Parameter, value: float | None) -> Fraction | None:
    del context, parameter
    # Film and television have rates such as 30000/1001.
    return None if value is None else Fraction(value).limit_denominator(1001)


@click.command()
@click.argument("source", metavar="INPUT", type=plain_file)
@click.argument("styles", metavar="STYLE...", type=input_file, nargs=-1)
@click.option(
    "-o",
    "--out",
    "destination",
    metavar="FOLDER|FILE.mp4",
    required=True,
    callback=_destination,
    help="Results: a folder with a PNG for each frame, or a video with the sound of INPUT.",
)
@request_flags
@click.option(
    "--temporal-weight", type=float, help="Weight of the difference from the frame before; larger values flicker less."
)
@click.option(
    "--follow-iterations",
    type=click.IntRange(min=1),
    help="Optimiser steps of each frame that follows another one.  [default: half of those of the first frame; all "
    "of them if something has come into view of a blend of styles]",
)
@click.option(
    "--flow/--no-flow",
    "use_flow",
    default=True,
    help="Warp the previous result by optical flow, or start from it unchanged if the pictures show different things.",
)
@click.option("--start", type=click.IntRange(min=1), default=1, show_default=True, help="Number of the first frame.")
@click.option("--end", type=click.IntRange(min=1), help="Number of the last frame.")
@click.option(
    "--fps",
    "rate",
    type=click.FloatRange(min=0.01),
    callback=_rate,
    help="Frames a second of FILE.mp4, which then has no sound.  [default: the rate of INPUT, or 25]",
)
@click.option("--resume", is_flag=True, help="Continue after the frames that FOLDER has.")
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
    """Stylise the frames of INPUT, a video or a folder of pictures, without flicker.

    Each frame starts from the result of the frame before, warped by optical flow, and stays close to it. The command
    needs the extra `video`: pip install 'nst-stylize[video]'.

    Ctrl-C ends the running job and keeps the finished frames.
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
        (str(source) == "-", "INPUT '-' is not possible: frames are read from a folder or a file"),
        (os.path.realpath(out) == os.path.realpath(source), "INPUT and --out are the same"),
    ):
        if refused:
            raise click.UsageError(message)
    request = build_request(content=source, out=None, **flags | {"picture_format": "png"})
    del request["content"]
    # The recipe of --from may have a smallest size, too.
    request["options"] = dataclasses.replace(request["options"], min_image_size=None)
    try:
        # Only this command needs the extra.
        from nst_client.cli.frames import run_sequence  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.ClickException(str(error)) from error
    code = run_sequence(
        context.obj,
        source,
        out,
        is_folder=is_folder,
        start=start,
        end=end,
        rate=rate,
        resume=resume,
        open_report=run.display.open_failsafe,
        retries=run.retries,
        use_flow=use_flow,
        follow_iterations=follow_iterations,
        timeout=run.timeout,
        **request,
    )
    context.exit(code)
