"""`nst-client stylize`: one picture, from file to file."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from nst_client.cli.exits import CANCELLED, reported
from nst_client.cli.interrupts import cancelling, held_back
from nst_client.cli.reports import open_report
from nst_client.client import StyleTransferClient
from nst_client.events import Preview, StopReason
from nst_client.files import write_atomically
from nst_client.options import Init, Optimizer, OutputOptions, PictureFormat, Style, TransferOptions
from nst_client.session import RETRIES

_FORMATS = MappingProxyType(
    {
        ".png": PictureFormat.PNG,
        ".jpg": PictureFormat.JPEG,
        ".jpeg": PictureFormat.JPEG,
        ".webp": PictureFormat.WEBP,
    }
)
"""By the suffix of a file."""

_PREVIEWS = 20
"""How many previews to ask for where --preview-every is not given."""
_PREVIEW_EVERY = 10
"""Iterations from preview to preview where --iterations is not given either."""


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value == "keep":
        return 0
    try:
        return int(value)
    except ValueError:
        message = f"{value!r} is no size, accepted are a number of pixels and 'keep'"
        raise click.BadParameter(message, context, parameter) from None


def _layers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float | None]:
    weights: dict[str, float | None] = {}
    for value in values:
        layer, equals, weight = value.partition("=")
        if layer in weights:
            raise click.BadParameter(f"{layer} is named more than once", context, parameter)
        try:
            weights[layer] = float(weight) if equals else None
        except ValueError:
            message = f"{value!r} has no number after '=', accepted are such as relu4_2 and relu4_2=0.5"
            raise click.BadParameter(message, context, parameter) from None
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
@click.option(
    "--size",
    "image_size",
    metavar="N|keep",
    callback=_size,
    help="Longest edge of the result in pixels, or that of CONTENT.",
)
@click.option("--content-weight", type=float, help="Weight of the content loss.")
@click.option("--style-weight", type=float, help="Weight of the style loss.")
@click.option("--tv-weight", type=float, help="Weight of the total variation; larger is smoother.")
@click.option(
    "--content-layer",
    "content_layers",
    metavar="LAYER[=WEIGHT]",
    multiple=True,
    callback=_layers,
    help="Layer of VGG-19 whose features are kept, such as relu4_2 or relu4_2=0.5. Repeatable.",
)
@click.option(
    "--style-layer",
    "style_layers",
    metavar="LAYER[=WEIGHT]",
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
@click.option("--optimizer", type=click.Choice([optimizer.value for optimizer in Optimizer]), help="The optimiser.")
@click.option("--learning-rate", type=float, help="Step size of the optimiser.")
@click.option("--lbfgs-history", type=int, help="Past steps that L-BFGS keeps.")
@click.option(
    "--init",
    type=click.Choice([init.value for init in Init if init is not Init.PICTURE]),
    help="What the optimisation starts from.",
)
@click.option("--init-picture", metavar="FILE", type=_file, help="Start from this picture instead.")
@click.option("--seed", type=int, help="Seed of every random choice.")
@click.option("--preview", metavar="FILE", type=_file, callback=_writable, help="Keep the latest preview here (JPEG).")
@click.option("--preview-every", type=int, help="Iterations from preview to preview.")
@click.option("--preview-size", type=int, help="Longest edge of previews in pixels.")
@click.option(
    "--format",
    "picture_format",
    type=click.Choice([known.value for known in PictureFormat]),
    help="Default: by --out's suffix.",
)
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
@click.pass_context
def stylize(
    context: click.Context,
    /,
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
    target: str = context.obj
    with (
        reported(target),
        held_back() as interrupts,
        StyleTransferClient(target, retries=retries) as client,
        client.stream(
            content,
            [Style(style, weight=blend[index], scale=scales[index]) for index, style in enumerate(styles)],
            init_picture=init_picture,
            options=TransferOptions(**transfer),
            output=output,
            timeout=timeout,
        ) as stylization,
        open_report(as_json=as_json, quiet=quiet) as report,
        cancelling(stylization, interrupts, report.note),
    ):
        for event in stylization:
            if isinstance(event, Preview) and preview is not None:
                with _writing(preview):
                    write_atomically(preview, event.data)
            report.event(event)
        result = stylization.result
        with _writing(out):
            result.save(out)
        report.saved(out, result)
    context.exit(CANCELLED if result.completed.stop_reason is StopReason.CANCELLED else 0)


def _format(out: Path, name: str | None) -> PictureFormat:
    if name is not None:
        return PictureFormat(name)
    try:
        return _FORMATS[out.suffix.lower()]
    except KeyError:
        message = f"--out {out} has no suffix of a picture, accepted are {', '.join(_FORMATS)}; or say --format"
        raise click.UsageError(message) from None


def _preview_every(iterations: int | None) -> int:
    return _PREVIEW_EVERY if iterations is None else max(1, iterations // _PREVIEWS)


def _for_each_style(flag: str, values: tuple[float, ...], count: int) -> Sequence[float | None]:
    if values and len(values) != count:
        raise click.UsageError(f"{flag} was given {len(values)} times, expected is once for each of {count} STYLE")
    return values or [None] * count


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.FileError(str(path), hint=error.strerror) from error
