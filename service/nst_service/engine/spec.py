"""From the bytes and options of a request to a specification that is known to be possible."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from nst_service.engine.errors import InvalidRequestError, PictureError, Violation
from nst_service.engine.layers import LAYERS, minimum_edge
from nst_service.engine.options import (
    Init,
    Limits,
    OutputOptions,
    StyleOptions,
    TransferOptions,
    range_violations,
    transfer_violations,
)
from nst_service.engine.pictures import Picture, Size, decode, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleInput:
    """A style picture as it came."""

    data: bytes
    options: StyleOptions = StyleOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """What was asked for, as it came: encoded pictures and unchecked options."""

    content: bytes
    styles: tuple[StyleInput, ...]
    init_picture: bytes | None = None
    options: TransferOptions = TransferOptions()
    output: OutputOptions = OutputOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec:
    """What will be done: pictures at their working sizes and checked options with every default filled in."""

    content: Picture
    """At the size of the result."""
    styles: tuple[tuple[Picture, float], ...]
    """Each style picture with its share; the shares sum to one."""
    init_picture: Picture | None
    """At the size of the result."""
    options: TransferOptions
    output: OutputOptions


def prepare(request: TransferRequest, limits: Limits, available_layers: tuple[str, ...]) -> TransferSpec:
    """Check a request, decode its pictures and scale them to their working sizes.

    Args:
        request: as it came.
        limits: of the server.
        available_layers: layers that the network has, in order.

    Raises:
        InvalidRequestError: with everything that is wrong, field by field. Pictures are looked at only where the rest
            is right: decoding costs time and memory.
    """
    if violations := list(_option_violations(request, limits, available_layers)):
        raise InvalidRequestError(violations)
    return _Preparation(request, limits).spec()


def _option_violations(
    request: TransferRequest, limits: Limits, available_layers: tuple[str, ...]
) -> Iterator[Violation]:
    yield from transfer_violations(request.options, limits, available_layers)
    yield from range_violations(request.output, "output")
    for index, style in enumerate(request.styles):
        yield from range_violations(style.options, f"styles[{index}]")
    if not request.styles:
        yield Violation("styles", "is empty, at least one style picture is required")
    if len(request.styles) > limits.max_styles:
        yield Violation("styles", f"has {len(request.styles)} entries, this server accepts at most {limits.max_styles}")
    init = request.options.init
    if init is Init.PICTURE and request.init_picture is None:
        yield Violation("init_picture", "is not set, but options.init asks to start from it")
    if init is not Init.PICTURE and request.init_picture is not None:
        yield Violation("options.init", f"is {init}, but init_picture is set, which accepts only {Init.PICTURE}")


class _Preparation:
    """Decodes picture by picture, keeps only their working sizes, and collects what is wrong with them."""

    def __init__(self, request: TransferRequest, limits: Limits):
        self._request = request
        self._options = request.options.completed()
        self._limits = limits
        self._violations: list[Violation] = []

    def spec(self) -> TransferSpec:
        request, options = self._request, self._options
        content = self._decode("content", request.content, options.active_layers)
        if content is None:
            # The working size of everything else follows from the content.
            raise InvalidRequestError(self._violations)
        size = fit(content.size, options.image_size)
        self._check_result_size(size)
        if self._violations:
            raise InvalidRequestError(self._violations)
        init = None
        if request.init_picture is not None and (picture := self._decode("init_picture", request.init_picture)):
            init = picture.flattened().resized(size)
        total = sum(style.options.weight for style in request.styles)
        styles = [
            (picture, style.options.weight / total)
            for index, style in enumerate(request.styles)
            if (picture := self._style(f"styles[{index}]", style, max(size)))
        ]
        if self._violations:
            raise InvalidRequestError(self._violations)
        return TransferSpec(
            content=content.resized(size),
            styles=tuple(styles),
            init_picture=init,
            options=options,
            output=request.output,
        )

    def _decode(self, field: str, data: bytes, layers: Collection[str] = ()) -> Picture | None:
        """Decode a picture that must be large enough for the layers."""
        try:
            picture = decode(data, max_pixels=self._limits.max_input_pixels)
        except PictureError as error:
            self._violations.append(Violation(field, str(error)))
            return None
        return picture if self._check_edges(field, "is", picture.size, layers) else None

    def _style(self, field: str, style: StyleInput, content_edge: int) -> Picture | None:
        layers = self._options.active_style_layers
        picture = self._decode(f"{field}.picture", style.data, layers)
        if picture is None:
            return None
        size = fit(picture.size, max(1, round(style.options.scale * content_edge)))
        if not self._check_edges(f"{field}.scale", "makes the style", size, layers):
            return None
        return picture.flattened().resized(size)

    def _check_result_size(self, size: Size) -> None:
        self._check_edges("options.image_size", "makes the result", size, self._options.active_layers)
        largest = self._limits.max_image_size
        if max(size) > largest:  # Only where the content keeps its size.
            self._violations.append(
                Violation("content", f"is {_pixels(size)} and keeps its size, this server accepts at most {largest} px")
            )
        largest = self._request.output.format.max_edge
        if max(size) > largest:
            self._violations.append(
                Violation(
                    "output.format",
                    f"{self._request.output.format} holds at most {largest} px at an edge, "
                    f"the result has {_pixels(size)}",
                )
            )

    def _check_edges(self, field: str, verb: str, size: Size, layers: Collection[str]) -> bool:
        smallest = minimum_edge(layers) if layers else 1
        if min(size) >= smallest:
            return True
        deepest = max(layers, key=LAYERS.index)
        self._violations.append(
            Violation(field, f"{verb} {_pixels(size)}, layer {deepest} needs at least {_pixels((smallest, smallest))}")
        )
        return False


def _pixels(size: Size) -> str:
    return f"{size[0]}x{size[1]} px"
