"""The specification of a transfer: what a valid request asks for, with decoded pictures at their working sizes."""

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from PIL.Image import Image

from nst_service.engine.choices import Init
from nst_service.engine.errors import InvalidRequestError, PictureError, Violation
from nst_service.engine.network.layers import LAYERS, minimum_edge
from nst_service.engine.options import (
    Limits,
    OutputOptions,
    StyleOptions,
    TransferOptions,
    output_violations,
    range_violations,
    transfer_violations,
)
from nst_service.engine.pictures.decode import decode
from nst_service.engine.pictures.formats import WRITTEN_FORMATS
from nst_service.engine.pictures.picture import Picture, resampled
from nst_service.engine.scales import most_scales
from nst_service.engine.sizes import Size, fit, scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleInput:
    """A style picture as it was received."""

    data: bytes
    """The encoded picture."""
    mask: bytes | None = None
    """An encoded picture, white where the style applies. None for everywhere."""
    options: StyleOptions = StyleOptions()
    """The options of this style."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRequest:
    """A request as it was received: encoded pictures and unchecked options."""

    content: bytes
    """The content picture."""
    styles: tuple[StyleInput, ...]
    """The style pictures."""
    content_mask: bytes | None = None
    """A picture, white where the result may change. None for everywhere."""
    init_picture: bytes | None = None
    """The picture that the optimisation starts from, with `Init.PICTURE`."""
    reference: bytes | None = None
    """A picture that the result should stay close to, such as the previous frame of a video, warped to this one."""
    reference_mask: bytes | None = None
    """A picture, white where the reference counts. None for everywhere."""
    options: TransferOptions = TransferOptions()
    """The options of the transfer."""
    output: OutputOptions = OutputOptions()
    """The options of the result file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """A style at its working size."""

    picture: Picture
    """The opaque picture."""
    share: float
    """The share among all styles; the shares sum to one."""
    scale: float = 1.0
    """The longest edge as a multiple of the content's longest edge."""
    mask: Image | None = None
    """A mask of mode L, at the size of the result: white where the style applies. None for everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSpec:
    """The specification of a transfer: pictures at their working sizes, and checked options without gaps.

    All pictures and masks but those of the styles have the size of the result.
    """

    content: Picture
    """The content picture."""
    styles: tuple[Style, ...]
    """The styles."""
    content_mask: Image | None = None
    """A mask of mode L, white where the picture may change. None for everywhere."""
    init_picture: Picture | None = None
    """The picture that the optimisation starts from, with `Init.PICTURE`."""
    reference: Picture | None = None
    """The picture that the result should stay close to."""
    reference_mask: Image | None = None
    """A mask of mode L, white where the reference counts. None for everywhere."""
    options: TransferOptions
    """The options of the transfer, with every default filled in."""
    output: OutputOptions
    """The options of the result file."""
    reduced_from: Size | None = None
    """The requested size of the result, where memory does not suffice for it."""

    def at(self, size: Size) -> "TransferSpec":
        """Return the specification for another size of the result."""
        if size == self.content.size:
            return self
        factor = max(size) / max(self.content.size)
        return dataclasses.replace(
            self,
            content=self.content.resized(size),
            styles=tuple(
                dataclasses.replace(
                    style,
                    picture=style.picture.resized(scaled(style.picture.size, factor)),
                    mask=style.mask and resampled(style.mask, size),
                )
                for style in self.styles
            ),
            content_mask=self.content_mask and resampled(self.content_mask, size),
            init_picture=self.init_picture and self.init_picture.resized(size),
            reference=self.reference and self.reference.resized(size),
            reference_mask=self.reference_mask and resampled(self.reference_mask, size),
        )

    def reduced(self, size: Size) -> "TransferSpec":
        """Return the specification for a smaller result, with the same scales and iterations."""
        return dataclasses.replace(
            self.at(size),
            options=dataclasses.replace(self.options, image_size=max(size)),
            reduced_from=self.reduced_from or self.content.size,
        )

    @property
    def least_edge(self) -> int:
        """The longest edge of the result below which a layer has no feature at some scale, in pixels."""
        layers = self.options.active_layers
        # Two pixels more, since every size is rounded twice.
        least = minimum_edge(layers) + 2 if layers else 1
        longest = max(self.content.size)
        shortest = min(min(picture.size) for picture in (self.content, *(style.picture for style in self.styles)))
        return min(longest, math.ceil((least << (self.options.scales - 1)) * longest / shortest))


def prepare(request: TransferRequest, limits: Limits, available_layers: tuple[str, ...]) -> TransferSpec:
    """Check a request, decode its pictures and scale them to their working sizes.

    Args:
        request: the request as it was received.
        limits: limits of the server.
        available_layers: layers that the network has, in order.

    Raises:
        InvalidRequestError: something is wrong with the request; it has a violation for each thing. Pictures are
            checked only if everything else is right, since decoding costs time and memory.
    """
    if violations := list(_option_violations(request, limits, available_layers)):
        raise InvalidRequestError(violations)
    return _Preparation(request, limits).spec()


def _option_violations(
    request: TransferRequest, limits: Limits, available_layers: tuple[str, ...]
) -> Iterator[Violation]:
    yield from transfer_violations(request.options, limits, available_layers)
    yield from output_violations(request.output)
    for index, style in enumerate(request.styles):
        yield from range_violations(style.options, f"styles[{index}]")
        if style.mask is not None and not request.options.active_style_layers:
            yield Violation(f"styles[{index}].mask", "is set, but no style layer has a weight above 0")
    if not request.styles and request.options.active_style_layers:
        yield Violation("styles", "is empty; at least one style picture is required")
    if len(request.styles) > limits.max_styles:
        yield Violation("styles", f"has {len(request.styles)} entries; this server accepts at most {limits.max_styles}")
    init = request.options.init
    if init is Init.PICTURE and request.init_picture is None:
        yield Violation("init_picture", f"is not set; it is required where options.init is {init}")
    if init is not Init.PICTURE and request.init_picture is not None:
        yield Violation("options.init", f"is {init}; it must be {Init.PICTURE} where init_picture is set")
    if init is Init.STYLE and not request.styles:
        yield Violation("options.init", f"is {init}; that requires at least one style picture")
    if request.reference_mask is not None and request.reference is None:
        yield Violation("reference_mask", "is set, but reference is not")


class _Preparation:
    """Decodes picture by picture, keeps only their working sizes, and collects violations."""

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
        init = self._flattened("init_picture", request.init_picture, size)
        reference = self._flattened("reference", request.reference, size)
        content_mask = self._mask("content_mask", request.content_mask, size)
        reference_mask = self._mask("reference_mask", request.reference_mask, size)
        total = sum(style.options.weight for style in request.styles)
        styles = [
            Style(
                picture=picture,
                share=style.options.weight / total,
                scale=style.options.scale,
                mask=self._mask(f"styles[{index}].mask", style.mask, size),
            )
            for index, style in enumerate(request.styles)
            if (picture := self._style(f"styles[{index}]", style, max(size)))
        ]
        if self._violations:
            raise InvalidRequestError(self._violations)
        spec = TransferSpec(
            content=content.resized(size),
            styles=tuple(styles),
            content_mask=content_mask,
            init_picture=init,
            reference=reference,
            reference_mask=reference_mask,
            options=self._with_room_for_scales([size, *(style.picture.size for style in styles)]),
            output=request.output,
        )
        least, longest, asked = spec.least_edge, max(size), options.min_image_size
        if asked and not least <= asked <= longest:
            accepted = f"accepted values are 0, and {least} to the size of the result, {longest}"
            raise InvalidRequestError([Violation("options.min_image_size", f"is {asked}; {accepted}")])
        return spec

    def _with_room_for_scales(self, sizes: Iterable[Size]) -> TransferOptions:
        """Return the options without scales that the pictures are too small for; the next one gets their iterations."""
        options = self._options
        shortest = min(min(size) for size in sizes)
        most = most_scales(shortest, minimum_edge(options.active_layers) if options.active_layers else 1)
        if options.scales <= most:
            return options
        dropped, kept = options.scale_iterations[:-most], options.scale_iterations[-most:]
        return dataclasses.replace(options, scales=most, scale_iterations=(sum(dropped) + kept[0], *kept[1:]))

    def _flattened(self, field: str, data: bytes | None, size: Size) -> Picture | None:
        picture = data is not None and self._decode(field, data)
        return picture.flattened().resized(size) if picture else None

    def _mask(self, field: str, data: bytes | None, size: Size) -> Image | None:
        picture = data is not None and self._decode(field, data)
        if not picture:
            return None
        mask = resampled(picture.to_mask(), size)
        if mask.getextrema() == (0, 0):
            self._violations.append(Violation(field, "is black everywhere; it applies where it is white"))
        return mask

    def _decode(self, field: str, data: bytes, layers: Collection[str] = ()) -> Picture | None:
        """Return a decoded picture that is large enough for the layers, or None with a violation."""
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
        scale = style.options.scale * self._options.stroke_factor
        size = fit(picture.size, max(1, round(scale * content_edge)))
        if not self._check_edges(f"{field}.scale", "makes the style", size, layers):
            return None
        return picture.flattened().resized(size)

    def _check_result_size(self, size: Size) -> None:
        self._check_edges("options.image_size", "makes the result", size, self._options.active_layers)
        largest = self._limits.max_image_size
        if max(size) > largest:  # Only where the content keeps its size.
            self._violations.append(
                Violation("content", f"is {_pixels(size)} and keeps its size; this server accepts at most {largest} px")
            )
        written = WRITTEN_FORMATS[self._request.output.format]
        if max(size) > written.longest_edge:
            self._violations.append(
                Violation(
                    "output.format",
                    f"is {written.name}, which holds at most {written.longest_edge} px at an edge; "
                    f"the result has {_pixels(size)}",
                )
            )

    def _check_edges(self, field: str, verb: str, size: Size, layers: Collection[str]) -> bool:
        smallest = minimum_edge(layers) if layers else 1
        if min(size) >= smallest:
            return True
        deepest = max(layers, key=LAYERS.index)
        self._violations.append(
            Violation(
                field, f"{verb} {_pixels(size)}; layer {deepest} needs at least {_pixels(Size(smallest, smallest))}"
            )
        )
        return False


def _pixels(size: Size) -> str:
    return f"{size.width}x{size.height} px"
