"""Whether the faces of a photograph are still faces in a result."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench import ROOT
from bench.environments import last_line, python_with

_REQUIREMENT = "opencv-python-headless==4.14.0.94"
"""OpenCV 5 has neither the cascades nor the class that runs them."""
_LEAST_OVERLAP = 0.3
"""The least intersection over union of a face in the photograph and the same face in the result."""


class DetectionError(Exception):
    """The detector failed. The message says how."""


class Face(NamedTuple):
    """The square around a face. All numbers are shares of the longest edge of the picture."""

    x: float
    y: float
    width: float
    height: float

    def overlap(self, other: "Face") -> float:
        """Return the intersection over union with another face."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        common = max(0.0, width) * max(0.0, height)
        return common / (self.width * self.height + other.width * other.height - common)


def detect(paths: Sequence[Path], cache: Path) -> list[list[Face]]:
    """Return the faces that OpenCV's Haar cascade (Viola & Jones 2001) finds in each picture.

    Args:
        paths: paths of the pictures.
        cache: folder for the environment with OpenCV 4.

    Raises:
        InstallationError: OpenCV 4 cannot be installed.
        DetectionError: the detector failed.
    """
    python = python_with("opencv-4", [_REQUIREMENT], cache)
    done = subprocess.run(
        [str(python), str(ROOT / "bench" / "looks" / "haar.py")],
        input="".join(f"{path.resolve()}\n" for path in paths),
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DetectionError(f"the detector ended with {done.returncode}: {last_line(done.stderr)}")
    return [[Face(*face) for face in json.loads(line)] for line in done.stdout.splitlines()]


def kept(content: Sequence[Face], result: Sequence[Face]) -> int:
    """Return how many of the content's faces the result has at their places."""
    return sum(any(face.overlap(other) >= _LEAST_OVERLAP for other in result) for face in content)
