"""The pictures that benchmarks work on."""

from pathlib import Path

import numpy as np
import torch
from paint_style import paint
from PIL import Image
from skimage.data import chelsea


def prepare(source: Path | None, folder: Path, *, size: int) -> tuple[Path, Path]:
    """Write a content and a style picture whose longest edge is `size` and return their paths.

    Every program gets pictures that need no resizing, so that all of them work on the same pixels.

    Args:
        source: a folder with tubingen.jpg and starry_night.jpg, or None: the photograph and the painting of the demo.
        folder: where to write.
        size: longest edge in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if source:
        pictures = [Image.open(source / name).convert("RGB") for name in ("tubingen.jpg", "starry_night.jpg")]
    else:
        pictures = [Image.fromarray(chelsea()), paint()]
    paths = folder / f"content-{size}.png", folder / f"style-{size}.png"
    for picture, path in zip(pictures, paths, strict=True):
        factor = size / max(picture.size)
        # Multiples of 16 leave no rest at any pooling: programs differ in what they do with one.
        edges = [16 * round(edge * factor / 16) for edge in picture.size]
        picture.resize(edges, Image.Resampling.LANCZOS).save(path)
    return paths


def load_tensor(path: str | Path, size: int) -> torch.Tensor:
    """Return (1, 3, H, W) float32 in [0, 1] of a picture whose longest edge is `size` already."""
    picture = Image.open(path).convert("RGB")
    assert max(picture.size) == size, f"{path} is {picture.size}, expected {size} at its longest edge"
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
