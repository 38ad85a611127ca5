"""The stylisation of a sequence of frames, each of which follows from the one before.

Ruder, Dosovitskiy & Brox, "Artistic style transfer for videos" (2016): the optimisation of a frame starts from the
previous result, warped by optical flow (section 4.1), and a term of its objective keeps it close to that picture
wherever the flow is reliable (equation 7). See `nst_client.video.flow` for both. What has come into view gets style
losses of its own (`nst_client.video.regions`).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nst_client.client import StyleTransferClient, Stylization
from nst_client.errors import InvalidRequestError
from nst_client.events import Event
from nst_client.files import read_picture, read_styles
from nst_client.options import OutputOptions, Picture, Style, Styles, TransferOptions
from nst_client.result import Result
from nst_client.video.flow import flow_between, reliable, warp
from nst_client.video.frames import Frame, naming
from nst_client.video.pixels import Pixels, decode, encode, resized
from nst_client.video.regions import Region, region_in_view, split_styles

_LEAST_RELIABLE = 0.15
"""The share of pixels with a reliable flow below which a frame is the first one of another shot. Between unrelated
photographs the share is below 0.1, between frames with fast motion above 0.3."""


@dataclass(frozen=True, kw_only=True)
class FinishedFrame:
    """A frame with its result, from which the next frame follows."""

    frame: Frame
    """The frame."""
    result: Picture = field(repr=False)
    """The stylised frame."""


def stylize_sequence(
    client: StyleTransferClient,
    frames: Iterable[Frame],
    styles: Styles,
    *,
    content_mask: Picture | None = None,
    init_picture: Picture | None = None,
    options: TransferOptions | None = None,
    output: OutputOptions | None = None,
    follow_iterations: int | None = None,
    use_flow: bool = True,
    previous: FinishedFrame | None = None,
    timeout: float | None = None,
    on_start: Callable[[Frame, Stylization], object] | None = None,
    on_event: Callable[[Frame, Event], object] | None = None,
) -> Iterator[tuple[Frame, Result]]:
    """Stylise frames one after the other, and yield each with its result.

    Args:
        client: the client of the server that does the work.
        frames: the frames in their order (see `nst_client.video.open_footage`).
        styles: the style, or several styles that are blended.
        content_mask: white where the frames may change. It applies to all frames.
        init_picture: the picture that the first frame starts from.
        options: the options of the optimisation. `init` and `scales` do not apply to a frame that follows another one:
            it starts from the previous result and at full size.
        output: the options of the encoded results.
        follow_iterations: iterations of each frame that follows another one. Default: half of those of the first frame;
            all of them if something has come into view of a blend of styles without masks.
        use_flow: whether the previous result is warped by optical flow, and the frame is kept close to it. Without it,
            the frame starts from the unchanged result, which suits pictures that show different things.
        previous: the frame before the first one. Default: the first frame starts like any picture.
        timeout: seconds for each frame, including its retries and the queue.
        on_start: called with each frame and its job as the job starts, so that the job can be ended.
        on_event: called with each frame and each of its events as it happens.

    Raises:
        NstError: see `nst_client.errors` for each kind; a note names the frame.
    """
    options = options or TransferOptions()
    # A pipe can be read only once, and a file could change between two frames.
    styles = read_styles(styles)
    content_mask = None if content_mask is None else read_picture("content_mask", content_mask)
    plan = _Plan(client, styles, options, follow_iterations)
    for frame in frames:
        with naming(frame):
            ties = _Ties() if previous is None else _ties(previous, frame, use_flow=use_flow)
            frame_styles = plan.styles_of(frame, ties)
            stylization = client.stream(
                frame.picture,
                frame_styles,
                content_mask=content_mask,
                options=plan.options_of(frame, ties, frame_styles),
                output=output,
                timeout=timeout,
                init_picture=init_picture if previous is None else ties.init_picture,
                reference=ties.reference,
                reference_mask=ties.reference_mask,
            )
            with stylization:
                if on_start:
                    on_start(frame, stylization)
                for event in stylization:
                    if on_event:
                        on_event(frame, event)
                result = stylization.result
        yield frame, result
        previous = FinishedFrame(frame=frame, result=result.data)


@dataclass(frozen=True, kw_only=True)
class _Ties:
    """The fields of a request that tie a frame to the one before; none for the first frame of a shot."""

    init_picture: Picture | None = None
    reference: Picture | None = None
    reference_mask: Picture | None = None
    in_view: Region | None = None
    """What has come into view, at the size of the result; None if that is next to nothing."""

    @property
    def follows(self) -> bool:
        """Whether the frame follows from the one before."""
        return self.init_picture is not None


class _Plan:
    """The styles and options of each frame of a sequence."""

    def __init__(
        self,
        client: StyleTransferClient,
        styles: Sequence[Style],
        options: TransferOptions,
        follow_iterations: int | None,
    ):
        self._client = client
        self._styles = styles
        self._options = options
        self._follow_iterations = follow_iterations
        self._effective: TransferOptions | None = None
        self._most_styles: int | None = None

    def styles_of(self, frame: Frame, ties: _Ties) -> Sequence[Style]:
        """Return the styles of a frame."""
        if ties.in_view is None or not self._has_style_losses(frame):
            return self._styles
        split = split_styles(self._styles, ties.in_view)
        return split if len(self._styles) < len(split) <= self._server_limit() else self._styles

    def options_of(self, frame: Frame, ties: _Ties, styles: Sequence[Style]) -> TransferOptions:
        """Return the options of a frame that has these styles."""
        if not ties.follows:
            return self._options
        iterations = self._follow_iterations
        if iterations is None:
            first = self._options.iterations or self._effective_options(frame).iterations or 0
            # What has come into view starts from the content. Without style losses of its own it needs all iterations.
            is_behind = ties.in_view is not None and styles is self._styles and self._has_style_losses(frame)
            iterations = first if is_behind else max(1, first // 2)
        return dataclasses.replace(self._options, iterations=iterations, scales=1, scale_iterations=(), init=None)

    def _has_style_losses(self, frame: Frame) -> bool:
        """Return whether any style layer counts. The server refuses masks of styles otherwise."""
        options = self._effective_options(frame)
        weights = options.style_layers.values() if isinstance(options.style_layers, Mapping) else ()
        return bool(options.style_weight) and any(weights)

    def _effective_options(self, frame: Frame) -> TransferOptions:
        """Return the options of the first frame with every default filled in, which depend on the preset."""
        if self._effective is None:
            self._effective = self._client.estimate(frame.picture, self._styles, options=self._options).options
        return self._effective

    def _server_limit(self) -> int:
        """Return how many styles a request may have."""
        if self._most_styles is None:
            self._most_styles = self._client.info().limits.max_styles
        return self._most_styles


def _ties(previous: FinishedFrame, frame: Frame, *, use_flow: bool) -> _Ties:
    """Return what ties a frame to the one before.

    Raises:
        InvalidRequestError: a picture cannot be read, or the frames have different sizes.
    """
    if not use_flow:
        return _Ties(init_picture=previous.result)
    result = _pixels(previous.result)
    present, past = _pixels(frame.picture), _pixels(previous.frame.picture)
    if present.shape != past.shape:
        (height, width), (past_height, past_width) = present.shape[:2], past.shape[:2]
        raise InvalidRequestError.of(
            "content", f"is {width}x{height} px, the frame before is {past_width}x{past_height} px: there is no flow"
        )
    height, width = result.shape[:2]
    present, past = (resized(picture, width, height) for picture in (present, past))
    backward = flow_between(present, past)
    known = reliable(backward, flow_between(past, present))
    if known.mean() < _LEAST_RELIABLE:
        return _Ties()
    warped = encode(warp(result, backward, beyond=present))
    mask = encode(np.uint8(255) * known.astype(np.uint8))
    return _Ties(init_picture=warped, reference=warped, reference_mask=mask, in_view=region_in_view(known))


def _pixels(picture: Picture) -> Pixels:
    pixels = decode(read_picture("content", picture))
    if pixels is None:
        raise InvalidRequestError.of("content", "is not a picture that can be read")
    return pixels
