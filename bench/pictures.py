"""The pictures of the benchmarks."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paint_style import paint
from PIL import Image, ImageOps
from skimage.data import astronaut, chelsea, coffee

from bench.task import Task

FOLDER_PAIRS = (
    ("tubingen.jpg", "starry_night.jpg"),
    ("tubingen.jpg", "the_scream.jpg"),
    ("tubingen.jpg", "shipwreck.jpg"),
)
"""Names of the content and of the style in a folder with pictures from the literature."""


@dataclass(frozen=True)
class Pair:
    """A content and a style picture."""

    name: str
    content: Image.Image
    style: Image.Image

    def write(self, folder: Path, size: int) -> tuple[Path, Path]:
        """Write both with a longest edge of `size` pixels and return their paths.

        Both get the same size, so that all programs work on the same pixels. Some programs resize the style to the
        content. Others do not divide Gram matrices by the size, and need a style that is as large as the content.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # Programs treat the rest of a pooling differently. Multiples of 16 leave none.
        factor = size / max(self.content.size)
        width, height = (16 * max(1, round(edge * factor / 16)) for edge in self.content.size)
        paths = folder / f"{self.name}-content-{size}.png", folder / f"{self.name}-style-{size}.png"
        for picture, path in zip((self.content, self.style), paths, strict=True):
            ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS).save(path)
        return paths

    def given(self, task: Task, folder: Path, size: int) -> Task:
        """Write this pair into a folder and return the task with it in place of its own pictures."""
        content, style = self.write(folder, size)
        return dataclasses.replace(task, content=str(content), style=str(style), size=size)


def pairs(folder: Path | None, count: int) -> list[Pair]:
    """Return up to `count` pairs: those of `FOLDER_PAIRS` in a folder, or photographs and paintings from packages."""
    found = _painted() if folder is None else _of(folder)
    return [pair for _, pair in zip(range(count), found, strict=False)]


def _painted() -> Iterator[Pair]:
    photographs: dict[str, Callable[[], Any]] = {"chelsea": chelsea, "coffee": coffee, "astronaut": astronaut}
    for seed, (name, photograph) in enumerate(photographs.items(), 7):
        yield Pair(f"{name}-painting{seed}", Image.fromarray(photograph()), paint(seed=seed))


def _of(folder: Path) -> Iterator[Pair]:
    for names in FOLDER_PAIRS:
        content, style = (Image.open(folder / name).convert("RGB") for name in names)
        yield Pair("-".join(Path(name).stem for name in names), content, style)
