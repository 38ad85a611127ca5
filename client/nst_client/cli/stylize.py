"""`nst-client stylize`: one picture, from file to file."""

import os
from pathlib import Path
from typing import Any

import click

from nst_client.cli.exits import CANCELLED, CommandError, reported
from nst_client.cli.interrupts import cancelling
from nst_client.cli.json_lines import event_to_json, result_to_json
from nst_client.cli.reports import Report, open_report
from nst_client.client import StyleTransferClient, Stylization
from nst_client.events import Event, Preview, StopReason
from nst_client.files import write_atomically
from nst_client.options import Init, Optimizer, OutputOptions, PictureFormat, Style, TransferOptions
from nst_client.result import Result
from nst_client.session import RETRIES

_FORMATS = {
    ".png": PictureFormat.PNG,
    ".jpg": PictureFormat.JPEG,
    ".jpeg": PictureFormat.JPEG,
    ".webp": PictureFormat.WEBP,
}
"""By the suffix of a file."""

_PREVIEWS = 20
"""How many previews to ask for where only --preview is given."""
_PREVIEW_EVERY = 10
"""Iterations between them where their number is not given either."""


class _Size(click.ParamType[int]):
    name = "N|keep"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if value == "keep":
            return 0
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no size, accepted are a number of pixels and 'keep'", param, ctx)


class _Layer(click.ParamType[tuple[str, float | None]]):
    name = "LAYER[=WEIGHT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float | None]:
        layer, equals, weight = str(value).partition("=")
        try:
            return layer, float(weight) if equals else None
        except ValueError:
            self.fail(f"{value!r} is no layer with a weight, accepted are such as relu4_2 and relu4_2=0.5", param, ctx)


def _layers(
    context: click.Context, parameter: click.Parameter, layers: tuple[tuple[str, float | None], ...]
) -> dict[str, float | None]:
    weights = dict(layers)
    if len(weights) < len(layers):
        raise click.BadParameter("a layer is named more than once", context, parameter)
    return weights


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


_file = click.Path(path_type=Path)


@click.command()
@click.argument("content", type=_file)
@click.argument("styles", metavar="STYLE...", type=_file, nargs=-1, required=True)
@click.option("-o", "--out", metavar="FILE", type=_file, required=True, callback=_writable, help="The result.")
@click.option("--iterations", type=int, help="Optimiser steps.")
@click.option("--size", "image_size", type=_Size(), help="Longest edge of the result in pixels, or that of CONTENT.")
@click.option("--content-weight", type=float, help="Weight of the content loss.")
@click.option("--style-weight", type=float, help="Weight of the style loss.")
@click.option("--tv-weight", type=float, help="Weight of the total variation; larger is smoother.")
@click.option(
    "--content-layer",
    "content_layers",
    type=_Layer(),
    multiple=True,
    callback=_layers,
    help="Layer of VGG-19 whose features are kept, such as relu4_2 or relu4_2=0.5. Repeatable.",
)
@click.option(
    "--style-layer",
    "style_layers",
    type=_Layer(),
    multiple=True,
    callback=_layers,
    help="Layer of VGG-19 whose Gram matrix is matched. Repeatable.",
)
@click.option("--style-blend", type=float, multiple=True, help="Share of a style; once for each STYLE, in order.")
@click.option(
    "--style-scale",
    type=float,
    multiple=True,
    help="Size of a style relative to CONTENT, larger gives larger strokes; once for each STYLE, in order.",
)
@click.option("--optimizer", type=click.Choice(list(Optimizer)), help="The optimiser.")
@click.option("--learning-rate", type=float, help="Step size of the optimiser.")
@click.option("--lbfgs-history", type=int, help="Past steps that L-BFGS keeps.")
@click.option(
    "--init",
    type=click.Choice([init for init in Init if init is not Init.PICTURE]),
    help="What the optimisation starts from.",
)
@click.option("--init-picture", metavar="FILE", type=_file, help="Start from this picture instead.")
@click.option("--seed", type=int, help="Seed of every random choice.")
@click.option("--preview", metavar="FILE", type=_file, callback=_writable, help="Keep the latest preview here (JPEG).")
@click.option("--preview-every", type=int, help="Iterations from preview to preview.")
@click.option("--preview-size", type=int, help="Longest edge of previews in pixels.")
@click.option("--format", "picture_format", type=click.Choice(list(PictureFormat)), help="Default: by --out's suffix.")
@click.option("--quality", type=int, help="Quality of JPEG and WebP.")
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
@click.pass_obj
def stylize(
    target: str,
    *,
    content: Path,
    styles: tuple[Path, ...],
    out: Path,
    style_blend: tuple[float, ...],
    style_scale: tuple[float, ...],
    init_picture: Path | None,
    preview: Path | None,
    picture_format: str | None,
    quality: int | None,
    timeout: float | None,
    retries: int,
    as_json: bool,
    quiet: bool,
    **transfer: Any,
) -> None:
    """Stylise CONTENT with one STYLE or a blend of several.

    What is not given is the server's default; `nst-client info` lists them, with the limits.

    Ctrl-C ends the job and writes the best picture so far.
    """
    if transfer["init"] is not None and init_picture is not None:
        raise click.UsageError("--init and --init-picture exclude each other")
    if preview is None:
        for flag in ("preview_every", "preview_size"):
            if transfer[flag] is not None:
                raise click.UsageError(f"--{flag.replace('_', '-')} needs --preview FILE")
    elif transfer["preview_every"] is None:
        transfer["preview_every"] = _preview_every(transfer["iterations"])
    output = OutputOptions(format=_format(out, picture_format), quality=quality)
    blend = _for_each_style("--style-blend", style_blend, len(styles))
    scales = _for_each_style("--style-scale", style_scale, len(styles))
    with (
        reported(target),
        StyleTransferClient(target, retries=retries) as client,
        client.stream(
            content,
            [Style(style, weight=blend[index], scale=scales[index]) for index, style in enumerate(styles)],
            init_picture=init_picture,
            options=TransferOptions(**transfer),
            output=output,
            timeout=timeout,
        ) as stylization,
        open_report(quiet=quiet and not as_json or as_json) as report,
        cancelling(stylization, report.note),
    ):
        pass
