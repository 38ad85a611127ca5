"""A stylisation of many frames, each of which follows from the one before.

Ruder, Dosovitskiy & Brox, "Artistic style transfer for videos" (2016): the optimisation of a frame starts from the
previous result, warped by optical flow (section 4.1), and a term of its objective holds it to that picture wherever
the flow can be trusted (equation 7). See `nst_client.video.flow` for both.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from nst_client.client import StyleTransferClient, Stylization
from nst_client.errors import InvalidRequestError, NstError
from nst_client.events import Event
from nst_client.files import read_picture
from nst_client.options import OutputOptions, Picture, Styles, TransferOptions
from nst_client.result import Result
from nst_client.video.flow import flow_between, reliable, warp
from nst_client.video.frames import Frame
from nst_client.video.pixels import Pixels, decode, encode, resized

_LEAST_RELIABLE = 0.1
"""Share of a frame whose flow can be trusted, below which it is the first of another shot."""


@dataclass(frozen=True, kw_only=True)
class FinishedFrame:
    """A frame with its result, that the next one follows from."""

    frame: Frame
    result: Picture = field(repr=False)


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
    on_event: Callable[[Frame, Event], object] | None = None,
) -> Iterator[tuple[Frame, Result]]:
    """Stylise frames one after the other, and yield each with its result.

    Args:
        client: of the server that does the work.
        frames: in their order; see `nst_client.video.open_footage`.
        styles: the style, or several that are blended.
        content_mask: white where the frames may change, the same for all of them.
        init_picture: the picture that the first frame starts from.
        options: how to stylise. A frame that follows another starts from its result, at full size at once: `init` and
            `scales` do not apply to it.
        output: how results are encoded.
        follow_iterations: iterations of frames that follow another. Default: half of those of the first.
        use_flow: whether frames follow from the previous result by optical flow, and are held to it. Without, they only
            start from it, as it is: for pictures that show different things.
        previous: the frame before the first one; default: none, the first one starts as any picture does.
        timeout: seconds for each frame, its retries and queue included.
        on_event: told each event of each frame as it happens.

    Raises:
        NstError: see `nst_client.errors` for each kind; a note names the frame.
    """
    jobs = stream_sequence(
        client,
        frames,
        styles,
        content_mask=content_mask,
        init_picture=init_picture,
        options=options,
        output=output,
        follow_iterations=follow_iterations,
        use_flow=use_flow,
        previous=previous,
        timeout=timeout,
    )
    with contextlib.closing(jobs):
        for frame, stylization in jobs:
            with _naming(frame):
                for event in stylization:
                    if on_event:
                        on_event(frame, event)
            yield frame, stylization.result


def stream_sequence(
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
) -> Generator[tuple[Frame, Stylization], None, None]:
    """Start to stylise frames one after the other (see `stylize_sequence` for the arguments).

    Yields each frame with the iterator of its events. The next frame begins when the generator is resumed, and needs
    the result of this one: events that were left are skipped first.

    Raises:
        NstError: see `nst_client.errors` for each kind; a note names the frame.
    """
    options = options or TransferOptions()
    following: TransferOptions | None = None
    for frame in frames:
        with _naming(frame):
            ties = {} if previous is None else _ties(previous, frame, use_flow=use_flow)
            if ties and following is None:
                iterations = follow_iterations or _half_of_the_first(client, frame, styles, options)
                following = dataclasses.replace(
                    options, iterations=iterations, scales=1, scale_iterations=(), init=None
                )
            stylization = client.stream(
                frame.picture,
                styles,
                content_mask=content_mask,
                options=following if ties else options,
                output=output,
                timeout=timeout,
                **ties or {"init_picture": init_picture if previous is None else None},
            )
        with stylization:
            yield frame, stylization
            with _naming(frame):
                for _ in stylization:
                    pass
            previous = FinishedFrame(frame=frame, result=stylization.result.data)


def _ties(previous: FinishedFrame, frame: Frame, *, use_flow: bool) -> dict[str, Picture | None]:
    """Return what ties a frame to the one before, as arguments of `stylize`; nothing for the first of another shot.

    Raises:
        InvalidRequestError: a picture cannot be read, or the frames have different sizes.
    """
    if not use_flow:
        return {"init_picture": previous.result}
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
        return {}
    warped = encode(warp(result, backward, beyond=present))
    mask = encode(np.uint8(255) * known.astype(np.uint8))
    return {"init_picture": warped, "reference": warped, "reference_mask": mask}


def _pixels(picture: Picture) -> Pixels:
    pixels = decode(read_picture("content", picture))
    if pixels is None:
        raise InvalidRequestError.of("content", "is no picture that can be read")
    return pixels


def _half_of_the_first(client: StyleTransferClient, frame: Frame, styles: Styles, options: TransferOptions) -> int:
    """Return how many iterations a frame needs that starts from a good picture."""
    iterations = options.iterations
    if iterations is None:
        # The default is the server's, and depends on the preset.
        iterations = client.estimate(frame.picture, styles, options=options).options.iterations
    return max(1, (iterations or 0) // 2)


@contextlib.contextmanager
def _naming(frame: Frame) -> Iterator[None]:
    """Name the frame in an error."""
    try:
        yield
    except NstError as error:
        error.add_note(str(frame))
        raise
