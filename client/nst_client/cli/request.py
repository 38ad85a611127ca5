"""The flags that say what to stylise and how, for every command that does or plans it."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from nst_client.errors import InvalidRequestError
from nst_client.files import PICTURE_FORMATS
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

picture_file = click.Path(path_type=Path)


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


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    if value is None:
        return ()
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        message = f"{value!r} is no list of numbers, accepted is such as 200,100,50"
        raise click.BadParameter(message, context, parameter) from None


def _metadata(context: click.Context, parameter: click.Parameter, path: Path | None) -> Metadata | None:
    if path is None:
        return None
    try:
        return read_metadata(path)
    except InvalidRequestError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _choice(*values: str) -> click.Choice[str]:
    return click.Choice([str(value) for value in values])


_FLAGS = (
    click.option("--preset", type=_choice(*Preset), help="Where every option comes from that is not given."),
    click.option(
        "--from",
        "recipe",
        metavar="FILE",
        type=picture_file,
        callback=_metadata,
        help="Take every option that is not given from a picture that nst has made.",
    ),
    click.option("--iterations", type=int, help="Optimiser steps, over all scales."),
    click.option(
        "--size",
        "image_size",
        metavar="N|keep",
        callback=_size,
        help="Longest edge of the result in pixels, or that of CONTENT.",
    ),
    click.option(
        "--min-size",
        "min_image_size",
        type=int,
        help="Longest edge down to which the result may be smaller where memory does not suffice.",
    ),
    click.option("--scales", type=int, help="Sizes to work on, coarse to fine, each twice the one before."),
    click.option(
        "--scale-iterations", metavar="N,N...", callback=_numbers, help="Iterations of each scale, coarse to fine."
    ),
    click.option("--content-weight", type=float, help="Weight of the content loss."),
    click.option("--style-weight", type=float, help="Weight of the style loss."),
    click.option("--tv-weight", type=float, help="Weight of the total variation; larger is smoother."),
    click.option("--laplacian-weight", type=float, help="Weight of the Laplacian loss; larger keeps contours."),
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
    click.option("--style-loss", type=_choice(*StyleLoss), help="What is matched to the style."),
    click.option("--normalize/--no-normalize", default=None, help="Make every term free of scale."),
    click.option("--pooling", type=_choice(*Pooling), help="What stands between the blocks of VGG-19."),
    click.option("--padding", type=_choice(*Padding), help="What VGG-19 sees beyond the edge."),
    click.option("--color", type=_choice(*ColorMode), help="Where the colours come from."),
    click.option("--style-blend", type=float, multiple=True, help="Share of a style; once for each STYLE, in order."),
    click.option(
        "--style-scale",
        type=float,
        multiple=True,
        help="Size of a style relative to CONTENT, larger gives larger strokes; once for each STYLE, in order.",
    ),
    click.option(
        "--style-mask",
        metavar="FILE|-",
        type=picture_file,
        multiple=True,
        help="White where a style applies; once for each STYLE, in order, '-' for everywhere.",
    ),
    click.option("--mask", "content_mask", metavar="FILE", type=picture_file, help="White where CONTENT may change."),
    click.option("--optimizer", type=_choice(*Optimizer), help="The optimiser."),
    click.option("--learning-rate", type=float, help="Step size of the optimiser."),
    click.option("--lbfgs-history", type=int, help="Past steps that L-BFGS keeps."),
    click.option("--averaging", type=float, help="Decay of the average of iterates that is shown; 0 for none."),
    click.option("--min-improvement", type=float, help="End when ten iterations improve by less than this share."),
    click.option("--time-budget", "time_budget_seconds", type=float, help="Seconds of optimisation; 0 for no limit."),
    click.option(
        "--init",
        type=_choice(*(init for init in Init if init is not Init.PICTURE)),
        help="What the optimisation starts from.",
    ),
    click.option("--init-picture", metavar="FILE", type=picture_file, help="Start from this picture instead."),
    click.option("--seed", type=int, help="Seed of every random choice."),
    click.option("--format", "picture_format", type=_choice(*PictureFormat), help="Default: by --out's suffix."),
    click.option("--quality", type=int, help="Quality of JPEG and WebP."),
    click.option("--bits", type=int, help="Bits per channel: 8, or 16 in PNG and TIFF."),
    click.option("--metadata/--no-metadata", default=None, help="Write into the file how it was made."),
)


def request_flags(command: _F) -> _F:
    """Give a command the flags of a request; `build_request` takes their values."""
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
    """Return the arguments of the client's `stylize`, `stream` and `estimate`.

    Raises:
        click.UsageError: flags that exclude each other.
    """
    if transfer["init"] is not None and init_picture is not None:
        raise click.UsageError("--init and --init-picture exclude each other")
    if recipe is not None:
        transfer = _completed(transfer, recipe)
        with contextlib.suppress(ValueError):  # As many styles as then: as they were then.
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


def _completed(transfer: dict[str, Any], recipe: Metadata) -> dict[str, Any]:
    """Fill in what is not given from the recipe of a picture."""
    then = dict(vars(recipe.options))
    if any(transfer[name] for name in ("iterations", "scales", "scale_iterations")):
        # The iterations of each scale belong to the numbers that are given now.
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
        message = f"--out {out} has no suffix of a picture, accepted are {', '.join(PICTURE_FORMATS)}; or say --format"
        raise click.UsageError(message) from None


def _for_each_style(flag: str, values: Sequence[Any], count: int) -> Sequence[Any]:
    if values and len(values) != count:
        raise click.UsageError(f"{flag} was given {len(values)} times, expected is once for each of {count} STYLE")
    return values or [None] * count
