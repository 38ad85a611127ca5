"""The task of a program in one run. Imports only the standard library, so that every program can read it."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

STYLE_CHANNELS = (64, 128, 256, 512, 512)
"""Channels of the style layers relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One run of one program.

    The objective is that of nst's preset "reference", in the scaling of neural-style: content_weight times the mean
    squared difference at relu4_2, plus style_weight times the sum over five layers of the mean squared difference of
    Gram matrices F F^T / (C H W), plus tv_weight times the sum of absolute differences of neighbours in 0..255.
    """

    content: str
    """Path of a picture whose longest edge is `size`, so that no program has to resize it."""
    style: str
    """Path of a picture as large as the content."""
    weights: str
    """Path of the weights of VGG-19 with torchvision's key names, for the pixels that the program feeds to them."""
    size: int
    """Longest edge in pixels."""
    evaluations: int
    samples: tuple[int, ...] = ()
    """Evaluations after which the picture is kept."""
    folder: str
    """Folder for the pictures and the times of the program."""
    content_weight: float
    style_weight: float
    tv_weight: float
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of this program only."""

    def write(self) -> Path:
        """Write the task into its folder and return the path."""
        path = Path(self.folder) / "task.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2))
        return path

    @classmethod
    def read(cls) -> Self:
        """Read the task that the command line of this process names."""
        fields = json.loads(Path(sys.argv[1]).read_text())
        return cls(**{**fields, "samples": tuple(fields["samples"])})
