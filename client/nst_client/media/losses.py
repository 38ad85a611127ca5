"""A recorder that draws the loss curve of a run."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from nst_client.events import Accepted, Event, LossKind, Progress
from nst_client.files import write_atomically
from nst_client.result import Result

_STYLE = {
    "savefig.dpi": 150,
    # Text stays text, and the same run gives the same bytes.
    "svg.fonttype": "none",
    "svg.hashsalt": "nst",
}
_INCHES = (9.0, 5.0)


@dataclass(frozen=True)
class _Point:
    iteration: float
    scale: int
    total: float = math.nan
    terms: Mapping[LossKind, float] = field(default_factory=dict)
    """The sum over the layers for each kind of loss."""


class LossPlot:
    """Draws the objective and its terms over the iterations."""

    def __init__(self, path: Path):
        self.path = path
        self._title = ""
        self._points: list[_Point] = []
        self._scale_starts: dict[int, float] = {}
        """The iteration at which each scale began, except for the first scale."""

    def event(self, event: Event) -> None:
        """Record the losses."""
        match event:
            case Accepted():
                size = f"{event.width}x{event.height}"
                self._title = f"{event.options.preset}, {size}" if event.options.preset else size
            case Progress():
                self._forget_from(event.iteration)
                if self._points and event.scale != self._points[-1].scale:
                    # Not every iteration has an event. A point without losses breaks the curves here.
                    start = (self._points[-1].iteration + event.iteration) / 2
                    self._points.append(_Point(start, event.scale))
                    self._scale_starts[event.scale] = start
                self._points.append(_Point(event.iteration, event.scale, event.total_loss, _by_kind(event)))

    def end(self, result: Result | None) -> bool:
        """Draw the recorded losses. Those of a failed job may tell why it failed."""
        del result
        if not self._points:
            return False
        buffer = io.BytesIO()
        kind = self.path.suffix.lower().removeprefix(".")
        # The user's matplotlibrc must not change the plot.
        with matplotlib.style.context(_STYLE, after_reset=True):
            self._figure().savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
        write_atomically(self.path, buffer.getvalue())
        return True

    def _forget_from(self, iteration: int) -> None:
        """Forget the losses that a job repeats after it was resumed from its last checkpoint."""
        while self._points and self._points[-1].iteration >= iteration:
            self._points.pop()
        self._scale_starts = {scale: start for scale, start in self._scale_starts.items() if start < iteration}

    def _figure(self) -> Figure:
        figure = Figure(_INCHES, layout="constrained")
        axes = figure.add_subplot(title=self._title, xlabel="iteration", ylabel="loss, weights included")
        # A term can be 0: the content loss is while the picture still is the content.
        axes.set_yscale("log", nonpositive="mask")
        axes.grid(alpha=0.3)
        iterations = [point.iteration for point in self._points]
        # The total is a wide line, since it often lies under the largest of its terms.
        totals = [point.total for point in self._points]
        axes.plot(iterations, totals, color="silver", linewidth=6, solid_capstyle="butt", marker=".", label="total")
        for index, kind in enumerate(LossKind):  # A kind has the same colour in every plot.
            if any(kind in point.terms for point in self._points):
                losses = [point.terms.get(kind, math.nan) for point in self._points]
                axes.plot(iterations, losses, ".-", color=f"C{index}", markersize=3, label=kind.replace("_", " "))
        for scale, start in self._scale_starts.items():
            axes.axvline(start, color="grey", linestyle="--", linewidth=1)
            axes.text(
                start,
                0.98,
                f"scale {scale}: losses not comparable with those before",
                transform=axes.get_xaxis_transform(),
                rotation="vertical",
                horizontalalignment="right",
                verticalalignment="top",
                fontsize="x-small",
                color="grey",
                zorder=1,
            )
        figure.legend(loc="outside right upper")
        return figure


def _by_kind(progress: Progress) -> dict[LossKind, float]:
    sums: dict[LossKind, float] = {}
    for term in progress.terms:
        sums[term.kind] = sums.get(term.kind, 0.0) + term.value
    return sums
