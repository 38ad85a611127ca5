"""The specification of a transfer: what a valid request asks for, with decoded pictures at their working sizes."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

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
from nst_service.engine.outline import TransferOutline
from nst_service.engine.pictures.formats import WRITTEN_FORMATS
from nst_service.engine.pictures.headers import read_size
from nst_service.engine.pictures.picture import Picture, resampled
from nst_service.engine.pictures.working import Role, render
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
    def outline(self) -> TransferOutline:
        """The sizes and options of this specification, as if they had been requested."""
        return TransferOutline(
            size=self.content.size,
            styles=tuple(style.picture.size for style in self.styles),
            options=self.options,
            output=self.output,
        )


_OPTIONAL_PICTURES = (
    ("content_mask", Role.MASK),
    ("init_picture", Role.OPAQUE),
    ("reference", Role.OPAQUE),
    ("reference_mask", Role.MASK),
)
"""The fields of a request with a single picture that may be missing, and its role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPicture:
    """A picture of a request."""

    field: str
    """The path of its field in the request, as in `Violation.field`."""
    role: Role
    data: bytes
    """The encoded picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingPicture:
    """A picture of a request, and the sizes at which the transfer needs it."""

    picture: RequestPicture
    sizes: tuple[Size, ...]
    """The sizes that the picture is resampled to in turn. The last one is its working size."""


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
    check_options(request, limits, available_layers)
    headers = {picture.field: _header(picture, limits) for picture in pictures_of(request)}
    outline = outline_of(request, headers, limits)
    rendered: dict[str, Picture | Image] = {}
    violations = []
    for working in working_pictures(request, outline):
        picture = working.picture
        try:
            rendered[picture.field] = render(
                picture.data, picture.role, working.sizes, max_pixels=limits.max_input_pixels
            )
        except PictureError as error:
            violations.append(Violation(picture.field, str(error)))
    if violations:
        raise InvalidRequestError(violations)
    return assemble(request, outline, rendered)


def _header(picture: RequestPicture, limits: Limits) -> Size | PictureError:
    try:
        return read_size(picture.data, max_pixels=limits.max_input_pixels)
    except PictureError as error:
        return error


def check_options(request: TransferRequest, limits: Limits, available_layers: tuple[str, ...]) -> None:
    """Check everything of a request except its pictures.

    Raises:
        InvalidRequestError: something is wrong with the request; it has a violation for each thing.
    """
    if violations := list(_option_violations(request, limits, available_layers)):
        raise InvalidRequestError(violations)


def pictures_of(request: TransferRequest) -> Iterator[RequestPicture]:
    """Yield the pictures of a request."""
    yield RequestPicture(field="content", role=Role.CONTENT, data=request.content)
    for index, style in enumerate(request.styles):
        yield RequestPicture(field=f"styles[{index}].picture", role=Role.OPAQUE, data=style.data)
        if style.mask is not None:
            yield RequestPicture(field=f"styles[{index}].mask", role=Role.MASK, data=style.mask)
    for field, role in _OPTIONAL_PICTURES:
        if (data := getattr(request, field)) is not None:
            yield RequestPicture(field=field, role=role, data=data)


def outline_of(request: TransferRequest, headers: Mapping[str, Size | PictureError], limits: Limits) -> TransferOutline:
    """Return the outline of a request whose options are right.

    Args:
        request: the request.
        headers: the size of each picture by its field, or why its header cannot be read.
        limits: limits of the server.

    Raises:
        InvalidRequestError: a header cannot be read, or a size is not accepted; it has a violation for each thing.
    """
    return _Outlining(request, headers, limits).outline()


def working_pictures(request: TransferRequest, outline: TransferOutline) -> Iterator[WorkingPicture]:
    """Yield the pictures of a request with the sizes at which a transfer with this outline needs them."""
    steps = outline.steps
    sizes = tuple(step.size for step in steps)
    styles = {
        f"styles[{index}].picture": tuple(step.styles[index] for step in steps) for index in range(len(request.styles))
    }
    for picture in pictures_of(request):
        yield WorkingPicture(picture=picture, sizes=styles.get(picture.field, sizes))


def assemble(
    request: TransferRequest, outline: TransferOutline, rendered: Mapping[str, Picture | Image]
) -> TransferSpec:
    """Return the specification of a request.

    Args:
        request: the request.
        outline: its outline.
        rendered: each of its `working_pictures` by its field, as `render` returns it.
    """
    pictures, masks = cast(Mapping[str, Picture], rendered), cast(Mapping[str, Image], rendered)
    total = sum(style.options.weight for style in request.styles)
    return TransferSpec(
        content=pictures["content"],
        styles=tuple(
            Style(
                picture=pictures[f"styles[{index}].picture"],
                share=style.options.weight / total,
                scale=style.options.scale,
                mask=masks.get(f"styles[{index}].mask"),
            )
            for index, style in enumerate(request.styles)
        ),
        content_mask=masks.get("content_mask"),
        init_picture=pictures.get("init_picture"),
        reference=pictures.get("reference"),
        reference_mask=masks.get("reference_mask"),
        options=outline.options,
        output=outline.output,
        reduced_from=outline.reduced_from,
    )


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


class _Outlining:
    """Derives the working sizes of a request from the headers of its pictures, and collects violations."""

    def __init__(self, request: TransferRequest, headers: Mapping[str, Size | PictureError], limits: Limits):
        self._request = request
        self._options = request.options.completed()
        self._headers = headers
        self._limits = limits
        self._violations: list[Violation] = []

    def outline(self) -> TransferOutline:
        request, options = self._request, self._options
        self._check_headers()
        content = self._source("content", options.active_layers)
        if content is None:
            # The working size of everything else follows from the content.
            raise InvalidRequestError(self._violations)
        size = fit(content, options.image_size)
        self._check_result_size(size)
        if self._violations:
            raise InvalidRequestError(self._violations)
        styles = [self._style(f"styles[{index}]", style, max(size)) for index, style in enumerate(request.styles)]
        if self._violations:
            raise InvalidRequestError(self._violations)
        outline = TransferOutline(
            size=size,
            styles=tuple(style for style in styles if style),
            options=self._with_room_for_scales([size, *(style for style in styles if style)]),
            output=request.output,
        )
        self._check_pixels((working.picture.field, working.sizes[-1]) for working in working_pictures(request, outline))
        least, longest, asked = outline.least_edge, max(size), options.min_image_size
        if asked and not least <= asked <= longest:
            accepted = f"accepted values are 0, and {least} to the size of the result, {longest}"
            self._violations.append(Violation("options.min_image_size", f"is {asked}; {accepted}"))
        if self._violations:
            raise InvalidRequestError(self._violations)
        return outline

    def _check_headers(self) -> None:
        for field, header in self._headers.items():
            if isinstance(header, PictureError):
                self._violations.append(Violation(field, str(header)))
        self._check_pixels((field, header) for field, header in self._headers.items() if isinstance(header, Size))

    def _check_pixels(self, sizes: Iterable[tuple[str, Size]]) -> None:
        """Add a violation for the first picture with which all pictures have too many pixels together."""
        most, pixels = self._limits.max_request_pixels, 0
        for field, size in sizes:
            pixels += size.width * size.height
            if pixels > most:
                total = f"with which the pictures of the request have {pixels} px in all"
                self._violations.append(
                    Violation(field, f"has {_pixels(size)}, {total}; this server accepts at most {most}")
                )
                return

    def _with_room_for_scales(self, sizes: Iterable[Size]) -> TransferOptions:
        """Return the options without scales that the pictures are too small for; the next one gets their iterations."""
        options = self._options
        shortest = min(min(size) for size in sizes)
        most = most_scales(shortest, minimum_edge(options.active_layers) if options.active_layers else 1)
        if options.scales <= most:
            return options
        dropped, kept = options.scale_iterations[:-most], options.scale_iterations[-most:]
        return dataclasses.replace(options, scales=most, scale_iterations=(sum(dropped) + kept[0], *kept[1:]))

    def _source(self, field: str, layers: Collection[str]) -> Size | None:
        """Return the size of a picture that is large enough for the layers, or None with a violation."""
        size = self._headers[field]
        if isinstance(size, PictureError) or not self._check_edges(field, "is", size, layers):
            return None
        return size

    def _style(self, field: str, style: StyleInput, content_edge: int) -> Size | None:
        layers = self._options.active_style_layers
        source = self._source(f"{field}.picture", layers)
        if source is None:
            return None
        scale = style.options.scale * self._options.stroke_factor
        size = fit(source, max(1, round(scale * content_edge)))
        return size if self._check_edges(f"{field}.scale", "makes the style", size, layers) else None

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
