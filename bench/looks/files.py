"""The files of pictures: reading them for `measures`, and the folder of results."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nst_service.engine.pictures.picture import resampled
from nst_service.engine.sizes import Size
from PIL import Image

from bench.looks.measures import Array, Measures, measure, style_size


@dataclass(frozen=True)
class Pictures:
    """A folder of results: SIZE/PAIR/CONTENDER.png."""

    folder: Path

    def path(self, pair: str, size: int, contender: str) -> Path:
        """Return the path of a result."""
        return self.folder / str(size) / pair / f"{contender}.png"

    def sizes(self) -> list[int]:
        """Return the sizes of which there are results."""
        return sorted(int(path.name) for path in self.folder.iterdir() if path.is_dir() and path.name.isdecimal())

    def contenders(self, pair: str, size: int) -> list[str]:
        """Return the names of the contenders that have a result for a pair at a size."""
        return sorted(path.stem for path in (self.folder / str(size) / pair).glob("[!.]*.png"))


def load(path: Path) -> Image.Image:
    """Return the picture of a file in mode RGB.

    Raises:
        OSError: the file cannot be read, or is no picture.
    """
    with Image.open(path) as image:
        return image.convert("RGB")


def pixels(image: Image.Image) -> Array:
    """Return a picture of mode RGB as an array (H, W, 3) in [0, 1]."""
    return np.asarray(image, np.float64) / 255


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture at another width and height, resampled as the engine does it."""
    return resampled(image, Size(*size))


def measure_files(result: Path, style: Path, content: Path, style_scale: float = 1.0) -> Measures:
    """Measure a result. Style and content are scaled to the sizes at which the engine sees them.

    Raises:
        OSError: a file cannot be read, or is no picture.
    """
    picture, style_picture, content_picture = load(result), load(style), load(content)
    seen = resized(style_picture, style_size(style_picture.size, picture.size, style_scale))
    return measure(pixels(picture), pixels(seen), pixels(resized(content_picture, picture.size)))
