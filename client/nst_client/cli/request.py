"""The flags of a request, for every command that stylises or estimates."""

import contextlib
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nst_client.cli.outputs import input_file
from nst_client.errors import InvalidRequestError
from nst_client.files import PICTURE_FORMATS, read_picture, read_styles
from nst_client.metadata import Metadata, read_metadata
from nst_client.options import (
    ColorMode,
    Init,
    Optimizer,
    OutputOptions,
    Padding,
    PictureFormat,
    Pooling,
    Preset,
    Style,
    StyleLoss,
    TransferOptions,
)

_F = TypeVar("_F", bound=Callable[..., Any])

plain_file = click.Path(path_type=Path)
"""The type of a path for which '-' is no standard stream."""

_CELL = re.compile(r"(?P<path>.+):(?P<cell>[^:/\\]*)", re.DOTALL)
"""The path of a sheet, followed by a cell. The path of a file on Windows has a colon before a separator only."""


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value == "keep":
        return 0
    try:
        return int(value)
    except ValueError:
        message = f"{value!r} is not a size, accepted are a number of pixels and 'keep'"
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
            message = f"{value!r} has no number after '=', accepted are values such as relu4_2 and relu4_2=0.5"
            raise click.BadParameter(message, context, parameter) from None
    return weights


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        message = f"{value!r} is not a list of numbers, accepted are values such as 200,100,50"
        raise click.BadParameter(message, context, parameter) from None


def _metadata(context: click.Context, parameter: click.Parameter, path: Path | None) -> Metadata | None:
    if path is None:
        return None
    cell: tuple[int, int] | None = None
    named = _CELL.fullmatch(str(path))
    # The name of a file may end like a cell.
    if named and not _exists(path) and _exists(Path(named["path"])):
        try:
            column, row = (int(part) for part in named["cell"].split(","))
        except ValueError:
            message = f"{named['cell']!r} is not a cell, accepted are a column and a row such as {named['path']}:3,2"
            raise click.BadParameter(message, context, parameter) from None
        path, cell = Path(named["path"]), (column, row)
    try:
        return read_metadata(path, cell)
    except InvalidRequestError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _exists(path: Path) -> bool:
    """Return whether a file exists. No name is too long for this."""
    try:
        return path.exists()
    except OSError:
        return False


def _choice(*values: str) -> click.Choice[str]:
    return click.Choice([str(value) for value in values])


_FLAGS = (
    click.option("--preset", type=_choice(*Preset), help="Preset from which omitted options are taken."),
    click.option(
        "--from",
        "recipe",
        metavar="FILE[:COLUMN,ROW]",
        type=input_file,
        callback=_metadata,
        help="Picture made by nst from which omitted options are taken, or a cell of a sheet made by `explore`.",
    ),
    click.option(
        "--strength",
        type=float,
        help="How much of a painting the result is: 0 is nearly CONTENT, 1 is nearly a texture of the style.",
    ),
    click.option("--stroke-size", type=float, help="Size of the strokes: 0 is fine, 1 is bold."),
    click.option("--iterations", type=int, help="Optimiser steps, over all scales."),
    click.option(
        "--size",
        "image_size",
        metavar="N|keep",
        callback=_size,
        help="Longest edge of the result in pixels; 'keep' keeps the size of CONTENT.",
    ),
    click.option(
        "--min-size",
        "min_image_size",
        type=int,
        help="Smallest allowed longest edge of the result when memory is short; 0 disables downsizing.",
    ),
    click.option("--scales", type=int, help="Number of sizes, coarse to fine, each twice as large as the one before."),
    click.option(
        "--scale-iterations", metavar="N,N...", callback=_numbers, help="Iterations of each scale, coarse to fine."
    ),
    click.option("--content-weight", type=float, help="Weight of the content loss."),
    click.option("--style-weight", type=float, help="Weight of the style loss."),
    click.option(
        "--tv-weight", type=float, help="Weight of the total variation; larger values give smoother pictures."
    ),
    click.option(
        "--laplacian-weight", type=float, help="Weight of the Laplacian loss; larger values preserve contours."
    ),
    click.option(
        "--content-layer",
        "content_layers",
        metavar="LAYER[=WEIGHT]",
        multiple=True,
        callback=_layers,
        help="Layer of VGG-19 whose features are kept, such as relu4_2 or relu4_2=0.5. Repeatable.",
    ),
    click.option(
        "--style-layer",
        "style_layers",
        metavar="LAYER[=WEIGHT]",
        multiple=True,
        callback=_layers,
        help="Layer of VGG-19 whose features are matched to the style. Repeatable.",
    ),
    click.option("--style-loss", type=_choice(*StyleLoss), help="Statistic that is matched to the style."),
    click.option("--normalize/--no-normalize", default=None, help="Make every term of the objective scale-free."),
    click.option("--pooling", type=_choice(*Pooling), help="Pooling between the blocks of VGG-19."),
    click.option("--padding", type=_choice(*Padding), help="Values that VGG-19 sees beyond the edge of the picture."),
    click.option("--color", type=_choice(*ColorMode), help="Source of the colours of the result."),
    click.option("--style-blend", type=float, multiple=True, help="Share of a style. Once for each STYLE, in order."),
    click.option(
        "--style-scale",
        type=float,
        multiple=True,
        help="Size of a style relative to CONTENT; larger values give larger strokes. Once for each STYLE, in order.",
    ),
    click.option(
        "--style-mask",
        metavar="FILE|-",
        type=plain_file,
        multiple=True,
        help="Mask that is white where a style applies, or '-' for everywhere. Once for each STYLE, in order.",
    ),
    click.option(
        "--mask", "content_mask", metavar="FILE", type=input_file, help="Mask that is white where CONTENT may change."
    ),
    click.option("--optimizer", type=_choice(*Optimizer), help="Optimiser."),
    click.option("--learning-rate", type=float, help="Step size of the optimiser."),
    click.option("--lbfgs-history", type=int, help="Number of past steps that L-BFGS keeps."),
    click.option(
        "--averaging",
        type=float,
        help="Decay of the moving average of iterates that the result shows; 0 disables averaging.",
    ),
    click.option(
        "--min-improvement",
        type=float,
        help="End a scale when ten iterations lower its loss by less than this share; 0 disables this.",
    ),
    click.option("--time-budget", "time_budget_seconds", type=float, help="Seconds of optimisation; 0 for no limit."),
    click.option(
        "--init",
        type=_choice(*(init for init in Init if init is not Init.PICTURE)),
        help="Picture that the optimisation starts from.",
    ),
    click.option("--init-picture", metavar="FILE", type=input_file, help="Picture to start from, in place of --init."),
    click.option("--seed", type=int, help="Seed of every random choice."),
    click.option(
        "--format",
        "picture_format",
        type=_choice(*PictureFormat),
        help="File format of the result.  [default: by the suffix of --out]",
    ),
    click.option("--quality", type=int, help="Quality of JPEG and WebP."),
    click.option("--bits", type=int, help="Bits per channel: 8, or 16 in PNG and TIFF."),
    click.option("--metadata/--no-metadata", default=None, help="Record in the file how it was made."),
)


def request_flags(command: _F) -> _F:
    """Give a command the flags of a request, whose values `build_request` takes."""
    return functools.reduce(lambda decorated, flag: flag(decorated), reversed(_FLAGS), command)


def build_request(
    *,
    content: Path,
    styles: tuple[Path, ...],
    out: Path | None,
    recipe: Metadata | None,
    style_blend: tuple[float, ...],
    style_scale: tuple[float, ...],
    style_mask: tuple[Path, ...],
    content_mask: Path | None,
    init_picture: Path | None,
    picture_format: str | None,
    quality: int | None,
    bits: int | None,
    metadata: bool | None,
    **transfer: Any,
) -> dict[str, Any]:
    """Return the arguments of the client's methods `stylize`, `stream` and `estimate`.

    Raises:
        click.UsageError: flags exclude each other, or do not go with the number of styles.
    """
    if transfer["init"] is not None and init_picture is not None:
        raise click.UsageError("--init and --init-picture exclude each other")
    if recipe is not None:
        transfer = _completed(transfer, recipe)
        with contextlib.suppress(ValueError):  # Only for as many styles as the recipe had.
            style_blend = style_blend or _same_number(recipe.style_weights, styles)
            style_scale = style_scale or _same_number(recipe.style_scales, styles)
        bits = recipe.output.bits if bits is None else bits
        quality = recipe.output.quality if quality is None else quality
    if init_picture is not None:
        transfer["init"] = None
    blend = _for_each_style("--style-blend", style_blend, len(styles))
    scales = _for_each_style("--style-scale", style_scale, len(styles))
    masks = _for_each_style("--style-mask", style_mask, len(styles))
    return {
        "content": content,
        "styles": [
            Style(
                style,
                weight=blend[index],
                scale=scales[index],
                mask=None if masks[index] in (None, Path("-")) else masks[index],
            )
            for index, style in enumerate(styles)
        ],
        "content_mask": content_mask,
        "init_picture": init_picture,
        "options": TransferOptions(**transfer),
        "output": OutputOptions(format=_format(out, picture_format), quality=quality, bits=bits, metadata=metadata),
    }


def with_pictures(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the bytes of every picture in place of the path of its file.

    Raises:
        InvalidRequestError: a file cannot be read.
    """
    pictures = {name: request[name] for name in ("content", "content_mask", "init_picture")}
    return (
        request
        | {name: None if picture is None else read_picture(name, picture) for name, picture in pictures.items()}
        | {"styles": read_styles(request["styles"])}
    )


def _completed(transfer: dict[str, Any], recipe: Metadata) -> dict[str, Any]:
    """Take omitted options from the recipe of a picture."""
    then = dict(vars(recipe.options))
    if any(transfer[name] for name in ("iterations", "scales", "scale_iterations")):
        # The iterations of each scale follow from the given numbers.
        del then["scale_iterations"]
    if transfer["image_size"] is not None:
        del then["min_image_size"]
    if transfer["optimizer"] is not None:
        del then["learning_rate"]
    missing = {name: value for name, value in then.items() if transfer.get(name) in (None, (), {})}
    return transfer | missing


def _same_number(values: tuple[float, ...], styles: Sequence[Path]) -> tuple[float, ...]:
    if len(values) != len(styles):
        raise ValueError
    return values


def _format(out: Path | None, name: str | None) -> PictureFormat | None:
    if name is not None:
        return PictureFormat(name)
    if out is None:
        return None
    try:
        return PICTURE_FORMATS[out.suffix.lower()]
    except KeyError:
        message = f"--out {out} has no suffix of a picture, accepted are {', '.join(PICTURE_FORMATS)}; or give --format"
        raise click.UsageError(message) from None


def _for_each_style(flag: str, values: Sequence[Any], count: int) -> Sequence[Any]:
    if values and len(values) != count:
        raise click.UsageError(f"{flag} was given {len(values)} times, expected is once for each of {count} STYLE")
    return values or [None] * count
